#!/bin/bash
# Runs before every job's first step, as the job's user: one line to the host that a job has started.
# A failing hook fails the job, and one that hangs holds it up. So this ends with 0 within a second,
# whatever the host does.
exec </dev/null >/dev/null 2>&1

fifo=/run/runner/started

if [ "${1-}" != tell ]; then
    timeout -k 0.1 0.8 /bin/bash "$0" tell
    exit 0
fi

# Printable ASCII without tabs, cut.
field() {
    local LC_ALL=C text=${1//[^ -~]/}
    printf '%s' "${text:0:$2}"
}

[ -p "$fifo" ] || exit 0
# For writing only: its mode lets nobody in here read. Opening waits for nobody, since the host holds
# the other end; and if no host does, the second ends.
exec 3>"$fifo" || exit 0
# At most 375 bytes, which is less than PIPE_BUF: written whole or not at all.
printf 'v1\t%s\t%s\t%s\t%s\n' \
    "$(field "${GITHUB_REPOSITORY-}" 140)" \
    "$(field "${GITHUB_RUN_ID-}" 20)" \
    "$(field "${GITHUB_JOB-}" 100)" \
    "$(field "${GITHUB_WORKFLOW-}" 100)" >&3
exit 0
