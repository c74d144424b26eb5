#!/bin/bash
# tries: a second config, for a second runner in the same container
# as: root
# wall: one config for each life
# expect: closed without a byte
# without: place visitor root

said=$(timeout 30 nc -U /run/runner/jit.sock </dev/null 2>&1)
status=$?
[ ${#said} -gt 500 ] && echo "got a config of ${#said} bytes" && exit 0
[ $status = 0 ] && [ -z "$said" ] && echo "closed without a byte"
exit 1
