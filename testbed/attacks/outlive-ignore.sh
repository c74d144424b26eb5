#!/bin/bash
# tries: to live on by ignoring every signal that can be ignored
# as: job
# in: lives
# wall: PID namespace
# expect: nothing lives on
# without: service --property=KillMode=process
# witness: sleep 1.5; pgrep -fa '^[a]ttack-outlives-ignore' | sed 's/^/got /' | grep . || { echo "nothing lives on"; exit 1; }
# after: pkill -KILL -f '^[a]ttack-outlives-ignore'; true

[ "$1" = plant ] || exit 0
(trap "" TERM INT HUP QUIT PIPE USR1 USR2; setsid bash -c "exec -a attack-outlives-ignore sleep 600" </dev/null >/dev/null 2>&1 &)
sleep 0.3
