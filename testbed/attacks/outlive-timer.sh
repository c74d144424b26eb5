#!/bin/bash
# tries: to come back by a timer of systemd
# as: root
# in: lives
# wall: PID namespace
# expect: nothing lives on
# without: service --property=KillMode=process
# witness: sleep 3; pgrep -fa '^[a]ttack-outlives-timer' | sed 's/^/got /' | grep . || { echo "nothing lives on"; exit 1; }
# after: pkill -KILL -f '^[a]ttack-outlives-timer'; true

[ "$1" = plant ] || exit 0
systemd-run --quiet --on-active=1s --timer-property=AccuracySec=100ms bash -c "exec -a attack-outlives-timer sleep 600"
