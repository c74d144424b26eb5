#!/bin/bash
# tries: to keep the daemon busy with what it says of its job
# as: job
# wall: bounded handshake
# expect: the daemon answers
# no-control: it is the daemon's own way to read
# witness: timeout 5 runner-controller status --json >/dev/null && { echo "the daemon answers"; exit 1; }; echo "got the daemon to be silent"

timeout 2 bash -c 'exec cat /dev/zero >/run/runner/started'
exit 0
