#!/bin/bash
# tries: a second job, by a second listener with the config of the same runner
# as: job
# wall: one session for each config
# expect: session for this runner already exists
# no-control: it is GitHub's, who has one session for each registration

jit=$(cat /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | sed -n 's/^ACTIONS_RUNNER_INPUT_JITCONFIG=//p' | head -n 1)
[ -n "$jit" ] || exit 2
mkdir -p /tmp/second && cp -r /opt/actions-runner/bin /tmp/second/ || exit 2
said=$(cd /tmp/second && env -i PATH="$PATH" HOME=/tmp/second ACTIONS_RUNNER_INPUT_JITCONFIG="$jit" timeout -s INT -k 1 6 \
  bin/Runner.Listener run 2>&1)
rm -rf /tmp/second
echo "${said//got/}"
grep -q 'Listening for Jobs' <<<"$said" && echo "got to listen" && exit 0
exit 1
