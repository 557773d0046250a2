git init -q --bare shop.git; git clone -q shop.git seed; (cd seed; git config user.email a@example.org; git config user.name A; printf 'flask==3.0.3\ngunicorn==22.0.0\npytest\n' > requirements.txt; printf 'def app(e, s):\n    s("200 OK", [("Content-Type", "text/plain")]); return [b"healthy\\n"]\n' > app.py; printf 'def test_sum(): assert 1 + 1 == 2\ndef test_error_page(): pass\n' > test_app.py; git add .; git commit -qm "Release 1.4.3"; git tag 1.4.3; git push -q origin HEAD --tags)
git clone -q shop.git src; mkdir -p releases shared/log
cat > deploy.sh <<'S'
#!/bin/bash
# deploy.sh VERSION
set -euo pipefail
VERSION=$1
PORT=8971
BASE=$(pwd)
RELEASE=$BASE/releases/$VERSION
echo "==> Fetching $VERSION"
git -C src fetch --tags origin
mkdir -p "$RELEASE"
cp -r src/. "$RELEASE/"
echo "==> Installing dependencies"
python3 -m venv "$RELEASE/venv"
"$RELEASE/venv/bin/pip" install -r "$RELEASE/requirements.txt"
echo "==> Running tests"
(cd "$RELEASE" && venv/bin/python -m pytest -v)
echo "==> Compressing assets"
tar -czf "shared/$VERSION.tar.gz" -C "$RELEASE" app.py requirements.txt
sha256sum "shared/$VERSION.tar.gz" | tee "shared/$VERSION.sha256"
echo "==> Switching"
ln -sfn "$RELEASE" current
(cd current && exec venv/bin/gunicorn -b 127.0.0.1:8971 --daemon --pid "$BASE/pid" app:app)
trap 'kill $(cat $BASE/pid)' EXIT
sleep 2
echo "==> Health check"
curl --fail --silent --show-error "http://127.0.0.1:$PORT/health"
echo "==> Deployed $VERSION in ${SECONDS}s"
S
