chmod 755 /srv /srv/build* .; kill -INT $(head -1 /srv/build*/*/data/postmaster.pid 2>/dev/null | grep -E '^[0-9]+$') 2>/dev/null; sleep 1; mkdir data; chown postgres data; touch pg.log; chown postgres pg.log
su postgres -c "/usr/lib/postgresql/15/bin/initdb -A trust -D $PWD/data" ; su postgres -c "/usr/lib/postgresql/15/bin/pg_ctl -D $PWD/data -o '-p 5447 -k /tmp' -l $PWD/pg.log -w start"
