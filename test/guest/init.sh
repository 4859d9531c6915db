#!/bin/busybox sh
# Process 1 of the test guest: as few processes as possible, each costs 10 ms under TCG. Ends by becoming the workload;
# where that ends the kernel panics and, with panic=-1, reboots: the workload begins anew, with another nonce, so that a
# reboot is never mistaken for a resume.
b=/bin/busybox
$b mount -t proc none /proc
# virtio needs virtio_ring, virtio_net needs net_failover, which needs failover: the order of the builder's list.
for module in $($b cat /modules); do $b insmod /mod/$module.ko; done
mtu=1500
run=bank
line=$($b cat /proc/cmdline)
for word in $line; do
  case $word in ip=*) ip=${word#ip=} ;; mtu=*) mtu=${word#mtu=} ;; run=*) run=${word#run=} ;; esac
done
$b ip link set lo up
$b ip link set eth0 up mtu $mtu
$b ip addr add $ip/24 dev eth0
exec /bin/$run $line
