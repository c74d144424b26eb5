#!/bin/bash
# tries: the config of the job next door, whose socket it somehow sees
# as: root
# in: visitor
# wall: peer's uid
# expect: closed without a byte
# without: place early root

socket=/run/first/jit.sock
# The control is the one whose socket it is.
[ -e $socket ] || socket=/run/runner/jit.sock
said=$(timeout 10 nc -U $socket </dev/null 2>&1)
status=$?
[ ${#said} -gt 500 ] && echo "got a config of ${#said} bytes" && exit 0
[ $status = 0 ] && [ -z "$said" ] && echo "closed without a byte"
exit 1
