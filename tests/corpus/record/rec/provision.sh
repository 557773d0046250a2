cat > provision.sh <<'S'
#!/bin/bash
set -u
export DEBIAN_FRONTEND=noninteractive
echo "Provisioning $(hostname | sed 's/.*/web1/')"
apt-get update -q
apt-get install -y -q --no-install-recommends jq acl
id deploy5 >/dev/null 2>&1 || useradd -m deploy5
install -d -o deploy5 -g deploy5 /srv/app5
echo "Writing configuration"
cat > /tmp/app5.conf <<C
error_log /var/log/app5/error.log warn;
C
jq -n '{port: 8080, on_error: "retry"}' > /tmp/app5.json && cat /tmp/app5.json
openssl rand -hex 8 | wc -c
setfacl -m u:deploy5:rx /srv/app5 && getfacl /srv/app5
echo "Done: 0 warnings"
S
