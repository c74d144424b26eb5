#!/bin/bash
# tries: to live on after its job, as a process without a parent
# as: job
# in: lives
# wall: PID namespace
# expect: nothing lives on
# without: service --property=KillMode=process
# witness: sleep 1.5; pgrep -fa '^[a]ttack-outlives-fork' | sed 's/^/got /' | grep . || { echo "nothing lives on"; exit 1; }
# after: pkill -KILL -f '^[a]ttack-outlives-fork'; true

[ "$1" = plant ] || exit 0
(setsid bash -c "exec -a attack-outlives-fork sleep 600" </dev/null >/dev/null 2>&1 &)
sleep 0.3
