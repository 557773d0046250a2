kill $(cat /srv/build*/*/my.pid 2>/dev/null) 2>/dev/null; sleep 1; mkdir d; chmod 755 /srv /srv/build* .; mysql_install_db --user=root --datadir=$PWD/d --auth-root-authentication-method=normal
(mariadbd --no-defaults --user=root --datadir=$PWD/d --skip-networking --socket=$PWD/s.sock --pid-file=$PWD/my.pid > my.log 2>&1 &) ; for i in $(seq 20); do [ -S s.sock ] && break; sleep 0.5; done; sleep 1
