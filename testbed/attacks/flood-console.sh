#!/bin/bash
# tries: to push the host's log out of its journal, by few lines with many bytes
# as: root
# given: unit LogRateLimitBurst=100000
# wall: bound of bytes by the launcher's console reader
# expect: were kept
# without: nspawn raw-console
# witness: sleep 2; journalctl --sync; kib=$(($(journalctl -q --all -u $UNIT --since -1min --grep 'attack-bytes' -o cat | wc -c) / 1024));
#   [ $kib -ge 2000 ] && echo "got $kib KiB into it" || { echo "$kib KiB were kept"; exit 1; }
# after: journalctl -q --rotate; journalctl -q --vacuum-time=1s; true

long=$(printf 'x%.0s' {1..40000})
for ((line = 0; line < 150; line++)); do echo "attack-bytes $line $long"; done >/dev/console || exit 2
