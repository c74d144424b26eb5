#!/bin/bash
# tries: to fill the host's disk
# as: job
# wall: size of the layer
# expect: No space left on device
# without: host nsenter -t $(systemctl show -P MainPID $UNIT) -m mount -o remount,size=400M /run/runner-controller/mnt/layer
#   undo nsenter -t $(systemctl show -P MainPID $UNIT) -m mount -o remount,size=96M /run/runner-controller/mnt/layer

said=$(head -c 200M /dev/zero 2>&1 >/tmp/fill)
status=$?
size=$(stat -c %s /tmp/fill)
rm /tmp/fill
[ $status = 0 ] && echo "got $size bytes" && exit 0
echo "$said"
exit 1
