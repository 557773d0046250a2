# sshd.sh PORT: a real sshd on the port, key k in the folder
mkdir -p /run/sshd; ssh-keygen -q -t ed25519 -N '' -f k; ssh-keygen -q -t ed25519 -N '' -f hk; cp k.pub ak; chmod 600 ak; mkdir -p /root/.sshh
/usr/sbin/sshd -f /dev/null -p $1 -h $PWD/hk -o ListenAddress=127.0.0.1 -o AuthorizedKeysFile=$PWD/ak -o StrictModes=no -o PidFile=$PWD/pid -o Subsystem='sftp internal-sftp'
