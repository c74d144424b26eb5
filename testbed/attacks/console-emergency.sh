#!/bin/bash
# tries: to write on every terminal of the host, by an emergency message on its console
# as: root
# in: bare
# wall: log level of the unit
# expect: an ordinary line
# without: unit SyslogLevelPrefix=yes
# witness: journalctl --sync; priority=$(journalctl -q -u $UNIT --since -1min --grep 'attack-emergency' -o json --output-fields=PRIORITY | tail -n1 | sed 's/.*"PRIORITY":"\([0-7]\)".*/\1/');
#   case $priority in 0) echo "got an emergency message";; 6) echo "an ordinary line"; exit 1;; *) echo "no line, or of priority $priority"; exit 2;; esac

printf '<0>attack-emergency \033[2J\n' >/dev/console || exit 2
