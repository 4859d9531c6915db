#!/bin/sh
# Boots this machine's Debian once more, in namespaces of its own, with systemd as the first process: `boot.sh FOLDER NAME NODE`,
# run by `unshare --mount --propagation private`. Becomes the process whose only child that systemd is, and with which it ends.
#
# FOLDER is the test's own; NAME is that of its control group. What the second system writes goes to memory, but for FOLDER/data,
# which is its /var/lib/diapause. It has no network but loopback, no disks, and may set nothing of the kernel that is not its own.
set -e
if [ "$1" != inside ]; then
  folder=$1 name=$2 node=$3
  mkdir -p "$folder/groups" "$folder/system" "$folder/data"
  # Of its own, wherever this machine has its groups, and whether they are of version 1 or 2.
  mount -t cgroup2 cgroup2 "$folder/groups"
  mkdir -p "$folder/groups/$name"
  echo $$ > "$folder/groups/$name/cgroup.procs"
  exec unshare --cgroup --pid --ipc --uts --net --mount --fork --kill-child sh "$0" inside "$folder" "$node"
fi
folder=$2 node=$3
system=$folder/system
# An overlay takes no upper folder that is below its lower one; memory is not.
mount -t tmpfs -o mode=755 tmpfs "$system"
mkdir "$system/upper" "$system/work" "$system/root"
mount -t overlay -o "lowerdir=/,upperdir=$system/upper,workdir=$system/work" overlay "$system/root"
cd "$system/root"

mount -t proc proc proc
# Of the settings of the kernel only those of its network are its own.
mount --bind proc/sys/net proc/sys/net
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind /proc/sys/net proc/sys/net
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for place in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$place"; done
chmod 1777 tmp
mkdir dev/pts dev/shm dev/net
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for device in null zero full random urandom tty net/tun kvm userfaultfd vhost-net; do
  [ ! -e "/dev/$device" ] || cp -a "/dev/$device" "dev/$device"
done
# As udev makes them, which the machine that this runs on may not have.
[ ! -e dev/net/tun ] || chmod 666 dev/net/tun
grep -q '^kvm:' etc/group || echo 'kvm:x:60900:' >> etc/group
[ ! -e dev/kvm ] || { chgrp "$(sed -n 's/^kvm:[^:]*:\([0-9]*\):.*/\1/p' etc/group)" dev/kvm && chmod 660 dev/kvm; }

# As a system that was just installed: no services of this machine's, nothing to mount, a program for all users.
rm -rf etc/systemd/system/* var/lib/diapause
: > etc/fstab
: > etc/machine-id
mkdir -p var/lib/diapause usr/local/bin
mount --bind "$folder/data" var/lib/diapause
: > usr/local/bin/node
mount --bind "$node" usr/local/bin/node

pivot_root . mnt
umount -l /mnt
path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec setpriv --bounding-set=-sys_module,-sys_rawio,-sys_time,-syslog \
  env -i container=diapause-test "PATH=$path" /lib/systemd/systemd --system --unit=basic.target --show-status=false
