#!/bin/bash
# tries: the runner's config before the runner has asked for it, as the user that jobs will have
# as: job
# in: early
# wall: peer's uid
# expect: closed without a byte
# no-control: root of the same container is the only one who is answered; see jit-other-slot

said=$(timeout 5 nc -U /run/runner/jit.sock </dev/null 2>&1)
status=$?
[ -n "$said" ] && echo "got ${said:0:20}" && exit $status
[ $status = 0 ] && echo "closed without a byte"
exit 1
