#!/usr/bin/env bash
# Reboots into the deployed system, once no job runs.
#
#   reboot.sh BOOTED WANTED MARK PATIENCE
#
# The two systems, a file that says whose drain it is, and how long to wait for jobs. A drain outlives
# the reboot, as any operator's does; with the mark, the next boot ends this one.
set -euo pipefail
booted=$1 wanted=$2 mark=$3 patience=$4

# What only a reboot changes.
parts() { readlink -f "$1"/{kernel,kernel-modules,initrd,systemd}; }
# Not in the test itself, where a system that is not there would go unnoticed.
is=$(parts "$booted")
will=$(parts "$wanted")
if [ "$is" = "$will" ]; then
    echo "the booted system is the wanted one"
    exit 0
fi

state=$(runner-status --json | jq -r .state)
if [ "$state" = running ]; then
    touch "$mark"
fi
if runner-controller drain --wait --timeout "$patience"; then
    systemctl reboot
    exit 0
fi
echo "jobs still run; the next attempt is the timer's"
if [ -e "$mark" ]; then
    runner-controller undrain
    rm "$mark"
fi
