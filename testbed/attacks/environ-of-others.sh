#!/bin/bash
# tries: environments of everybody, the configs of other runners among them
# as: root
# wall: PID namespace
# expect: the others are not visible
# given: nspawn --private-users=no
# without: nspawn +--bind-ro=/proc:/run/host-proc

grep -lase CANARY=sibling-secret /proc/[0-9]*/environ /run/host-proc/[0-9]*/environ | sed 's/^/got /' | grep . && exit 0
echo "the others are not visible"
exit 1
