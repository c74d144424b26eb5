#!/bin/bash
# tries: to put, past a bind that was left writable, another socket where the next runner asks for its config
# as: root
# wall: owner of the directory
# expect: Permission denied
# given: nspawn !--bind-ro +--bind=/run/runner-controller/mnt/sockets:/run/runner
# without: host chmod 777 /run/runner-controller/slots/$MACHINE
#   undo chmod 755 /run/runner-controller/slots/$MACHINE

if said=$(mkdir /run/runner/mine 2>&1); then
  rmdir /run/runner/mine
  echo "got to make a file"
  exit 0
fi
echo "$said"
exit 1
