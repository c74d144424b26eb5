#!/bin/bash
# tries: to end the job next door
# as: root
# wall: PID namespace
# expect: No such process
# no-control: systemd-nspawn has no container without one

# Numbers of processes on the host. No process in the container has one of them.
said=$(kill -0 "$((SIBLING_LEADER + 1000000))" 2>&1; kill -TERM "$SIBLING_LEADER" 2>&1) && echo "got it" && exit 0
echo "$said"
exit 1
