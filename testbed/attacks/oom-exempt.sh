#!/bin/bash
# tries: to have the kernel end every other process first when memory runs out
# as: root
# wall: capabilities
# expect: Permission denied
# no-control: the machine below a test host may lack the capability that it needs

if said=$({ echo -999 >/proc/self/oom_score_adj; } 2>&1); then
  echo "got an exemption"
  exit 0
fi
echo "$said"
exit 1
