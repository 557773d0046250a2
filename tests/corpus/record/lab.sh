#!/bin/sh
# lab.sh: what record.py needs, in a throw-away Debian 12 with node, npm, cargo, Maven, terraform and docker's client.
set -u
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
apt-get update
apt-get install -y --no-install-recommends golang-go rsync openssh-server nginx-light apache2 mariadb-server postgresql \
    autoconf automake libtool ninja-build meson locales ruby-rspec bundler phpunit composer bats sqlite3 docker.io haproxy \
    gradle junit4 unzip zip strace aptitude libmaven-resources-plugin-java libsurefire-java libmaven-compiler-plugin-java
sed -i 's/^# *\(de_DE.UTF-8\|fr_FR.UTF-8\)/\1/' /etc/locale.gen
locale-gen
python3 -m venv /opt/v
/opt/v/bin/pip install ansible-core pytest pytest-xdist alembic django psycopg2-binary sqlalchemy
npm install -g yarn pnpm jest mocha vitest typescript
# The second hold-out (holdout2.txt).
apt-get install -y --no-install-recommends postgresql-contrib docker-compose php-fpm php-cli scons ant clang cppcheck shellcheck \
    yamllint libxml2-utils mercurial subversion puppet vagrant podman buildah skopeo lighttpd caddy varnish bind9-utils \
    bind9-dnsutils bind9 postfix logrotate rsyslog cron nftables jq adduser xfsprogs e2fsprogs fdisk borgbackup restic rclone gpg \
    certbot dpkg-dev debhelper lintian rpm zsh zstd valgrind iproute2 netcat-openbsd iputils-ping rake ruby-minitest lua5.4 \
    procps psmisc redis-server cpio file
/opt/v/bin/pip install uv poetry build tox flake8 mypy ruff sphinx gunicorn ansible-lint
# The hold-outs also want mysqld, and postgres on port 5433 with its socket in /tmp, as scenarios of the corpus start them.
# The third hold-out (holdout3.txt): rec/ as /rec, RECORD_VENV=/usr/local/v; its systemd/ and service/ under a booted systemd.
apt-get install -y --no-install-recommends librust-regex-dev librust-serde-json-dev ufw memcached acl apt-utils sudo
python3 -m venv /usr/local/v
/usr/local/v/bin/pip install ansible-core pytest pytest-xdist pytest-cov alembic django psycopg2-binary sqlalchemy flask uv poetry \
    pipenv nox black isort mkdocs pyinfra awscli supervisor celery gunicorn uvicorn fastapi bandit twine build
npm install -g prettier pm2
