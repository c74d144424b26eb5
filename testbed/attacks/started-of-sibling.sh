#!/bin/bash
# tries: to say in another slot's name that its job has started
# as: job
# wall: mount namespace
# expect: is nowhere
# without: place visitor job

for fifo in /run/first/started /run/runner/../*/started /proc/[0-9]*/root/run/runner-controller/slots/*/started; do
  case $(readlink -f "$fifo") in /run/runner/started | /proc/*/root/run/runner/started) continue ;; esac
  # Nothing that the daemon would take for a line.
  [ -p "$fifo" ] && printf ' ' >"$fifo" && echo "got $fifo" && exit 0
done
echo "another slot's FIFO is nowhere"
exit 1
