#!/bin/bash
# tries: arguments of the job next door
# as: job
# wall: PID namespace
# expect: the others are not visible
# without: nspawn +--bind-ro=/proc:/run/host-proc

# Not itself.
grep -las '[s]ibling-secret' /proc/[0-9]*/cmdline /run/host-proc/[0-9]*/cmdline | sed 's/^/got /' | grep . && exit 0
echo "the others are not visible"
exit 1
