#!/bin/bash
# tries: to live on by being stopped while everybody else is ended
# as: job
# in: lives
# wall: PID namespace
# expect: nothing lives on
# without: service --property=KillMode=process
# witness: sleep 1.5; pgrep -fa '^[a]ttack-outlives-stopped' | sed 's/^/got /' | grep . || { echo "nothing lives on"; exit 1; }
# after: pkill -KILL -f '^[a]ttack-outlives-stopped'; true

[ "$1" = plant ] || exit 0
setsid bash -c "exec -a attack-outlives-stopped sleep 600" </dev/null >/dev/null 2>&1 &
sleep 0.3
kill -STOP $!
