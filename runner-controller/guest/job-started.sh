#!/bin/bash
# Runs before the first step of every job, as the job's user. It moves the job away from the listener and
# writes a line to the host, which reports that a job has started.
# A failing hook fails the job, and a hanging hook delays it. So this script ends with 0 within seconds,
# whatever the host does. The runner calls it with -e.
set +e
exec </dev/null >/dev/null 2>&1

fifo=/run/runner/started

# Moves the worker, which runs the job, to the control group that the start script created. When memory
# runs out, the kernel kills the job first. The worker is our second oldest ancestor; the oldest is the
# listener.
move() {
    local line group pid=$PPID worker='' stat name
    while read -r line; do
        case $line in 0::*/listener) group=/sys/fs/cgroup${line#0::} ;; esac
    done </proc/self/cgroup
    [ -w "${group%/*}/job/cgroup.procs" ] || return
    while read -r stat <"/proc/$pid/stat"; do
        # The name may contain anything. State and parent follow it.
        stat=${stat##*) }
        stat=${stat#* }
        [ "${stat%% *}" -gt 1 ] || break
        worker=$pid
        read -r name <"/proc/$pid/comm"
        [ "$name" != Runner.Worker ] || break
        pid=${stat%% *}
    done
    [ -n "$worker" ] || return
    printf '%s' "$worker" >"${group%/*}/job/cgroup.procs"
    printf 500 >"/proc/$worker/oom_score_adj"
}

# Prints the printable ASCII characters of a text, up to a length.
field() {
    local LC_ALL=C text=${1//[^ -~]/}
    printf '%s' "${text:0:$2}"
}

# A minimal image starts the rest of its system with the runner. A job begins after that.
booting() {
    [ -e /run/github-runner/configured ] && [ ! -e /run/github-runner/booted ]
}

case ${1-} in
    tell) ;;
    await)
        while booting; do sleep 0.02; done
        exit 0
        ;;
    *)
        # The move waits for no other process, so it needs no timeout.
        move
        timeout -k 0.1 3 /bin/bash "$0" tell
        ! booting || timeout -k 0.1 10 /bin/bash "$0" await
        exit 0
        ;;
esac
[ -p "$fifo" ] || exit 0
# The FIFO's mode permits writing alone. Opening does not block while the host has the other end open.
# If it does block, the timeout ends it.
exec 3>"$fifo" || exit 0
# The line has at most 375 bytes, fewer than PIPE_BUF, so it is written whole or not at all.
printf 'v1\t%s\t%s\t%s\t%s\n' \
    "$(field "${GITHUB_REPOSITORY-}" 140)" \
    "$(field "${GITHUB_RUN_ID-}" 20)" \
    "$(field "${GITHUB_JOB-}" 100)" \
    "$(field "${GITHUB_WORKFLOW-}" 100)" >&3
exit 0
