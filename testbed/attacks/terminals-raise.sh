#!/bin/bash
# tries: to raise the maximum of its /dev/pts
# as: root
# wall: owner of /dev/pts
# expect: permission denied
# no-control: the launcher makes it for the host's user namespace in every container

mount -t devpts -o remount,nosuid,noexec,gid=tty,mode=620,ptmxmode=666,max=100000 devpts /dev/pts || exit 1
echo "got a higher maximum"
