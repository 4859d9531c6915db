#!/bin/busybox sh
# Process 1 of the guest with an agent: Debian's qemu-guest-agent, and what its clocks say, a line each time.
b=/bin/busybox
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev
for module in $($b cat /modules) virtio_console; do $b insmod /mod/$module.ko; done
$b ip link set eth0 up
$b ip addr add 10.9.0.1/24 dev eth0
port=$($b ls /sys/class/virtio-ports 2> /dev/null)
[ -n "$port" ] && ! $b grep -q agent=none /proc/cmdline && /usr/sbin/qemu-ga -m virtio-serial -p /dev/$port -f /run/agent.pid -t /run &
# In one breath: CMOS and CLOCK_REALTIME in seconds, then CLOCK_MONOTONIC, and which port the agent has.
while :; do
  read up rest < /proc/uptime
  read cmos < /sys/class/rtc/rtc0/since_epoch
  echo "CLOCKS cmos=$cmos real=$($b date +%s) monotonic=$up port=$port told=$($b cat /run/told 2> /dev/null)."
  $b sleep 0.2
done
