#!/bin/bash
# tries: the host's journal, by a directory that it somehow sees
# as: root
# wall: user namespace
# expect: Permission denied
# given: nspawn +--bind-ro=/var/log/journal:/run/host-log
# without: nspawn --private-users=no

said=$(cat /run/host-log/*/system.journal 2>&1 | head -c 200 | tr -d '\0')
[[ $said == LPKSHHRH* ]] && echo "got it" && exit 0
echo "$said"
exit 1
