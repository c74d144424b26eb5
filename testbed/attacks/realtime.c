// tries: to have a CPU alone, by a realtime priority
// as: root
// wall: capabilities
// expect: Operation not permitted
// given: nspawn --private-users=no
// without: capability CAP_SYS_NICE

#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    struct sched_param highest = {.sched_priority = 1};
    if (sched_setscheduler(0, SCHED_RR, &highest) == 0)
        return puts("got a realtime priority"), 0;
    puts(strerror(errno));
    return 1;
}
