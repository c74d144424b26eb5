#!/bin/bash
# tries: to fill the host's journal
# as: root
# in: bare
# wall: rate limit of the unit's log
# expect: lines were kept
# without: unit LogRateLimitBurst=100000
# witness: sleep 2; journalctl --sync; lines=$(journalctl -q -u $UNIT --since -1min --grep 'attack [0-9]' -o cat | wc -l);
#   [ $lines -ge 2000 ] && echo "got $lines lines into it" || { echo "$lines lines were kept"; exit 1; }
# after: journalctl -q --rotate; journalctl -q --vacuum-time=1s; true

for ((line = 0; line < 2500; line++)); do echo "attack $line"; done >/dev/console || exit 2
