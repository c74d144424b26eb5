#!/usr/bin/env bash
# Reboots into the deployed system, once no job runs.
#
#   reboot.sh BOOTED WANTED PATIENCE
#
# Arguments: the two systems, and the longest wait for jobs. A drain ends with the boot. If jobs still run,
# the script undrains the host, unless an operator had drained it before.
set -euo pipefail
booted=$1 wanted=$2 patience=$3

# Prints the parts that only a reboot changes. A system may lack a part, such as modules of a kernel.
parts() {
    local part
    [ -d "$1" ] || return
    for part in kernel kernel-modules initrd systemd; do
        readlink -e "$1/$part" || echo "no $part"
    done
}
# Assigned first, because a failure inside the test would go unnoticed.
is=$(parts "$booted")
will=$(parts "$wanted")
if [ "$is" = "$will" ]; then
    echo "not rebooting: the deployed system is already booted"
    exit 0
fi

before=$(runner-status --json | jq -r .state)
take_jobs_again() {
    if [ "$before" = running ]; then
        runner-controller undrain
    fi
}
# A switch that turns these reboots off stops the script during the drain.
trap 'echo "not rebooting: stopped"; take_jobs_again; exit 0' TERM
if runner-controller drain --wait --timeout "$patience"; then
    trap - TERM
    systemctl reboot
    exit 0
fi
echo "not rebooting: jobs still run; the timer tries again"
take_jobs_again
