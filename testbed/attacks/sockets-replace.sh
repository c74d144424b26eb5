#!/bin/bash
# tries: to put another socket where the next runner asks for its config
# as: root
# wall: read-only bind
# expect: Read-only file system
# in: job
# given: host chmod 777 /run/runner-controller/slots/$MACHINE undo chmod 755 /run/runner-controller/slots/$MACHINE
# without: nspawn !--bind-ro +--bind=/run/runner-controller/mnt/sockets:/run/runner

if said=$(mkdir /run/runner/mine 2>&1); then
  rmdir /run/runner/mine
  echo "got to make a file"
  exit 0
fi
echo "$said"
exit 1
