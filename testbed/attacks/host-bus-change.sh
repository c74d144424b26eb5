#!/bin/bash
# tries: to have the host's systemd do something as root, by a bus that it somehow sees
# as: root
# wall: user namespace
# expect: Transport endpoint is not connected
# given: nspawn +--bind=/run/dbus/system_bus_socket:/run/host-bus
# without: nspawn --private-users=no

if said=$(busctl --address=unix:path=/run/host-bus call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
  org.freedesktop.systemd1.Manager ResetFailedUnit s attack-answers.service 2>&1); then
  echo "got it done"
  exit 0
fi
echo "$said"
exit 1
