#!/bin/sh
# A QEMU that was built without seccomp, as far as asking for its version goes.
[ "$1" = -sandbox ] && echo "-sandbox support is not enabled in this QEMU binary" >&2 && exit 1
echo 'QEMU emulator version 7.2.22'
