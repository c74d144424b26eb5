// tries: to watch what the CPU does for others
// as: root
// wall: system call filter
// expect: Operation not permitted
// given: nspawn --private-users=no
// without: nspawn !--system-call-filter +--system-call-filter=perf_event_open

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <linux/perf_event.h>

int main(void) {
    struct perf_event_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.size = sizeof attr;
    attr.type = PERF_TYPE_SOFTWARE;
    attr.config = PERF_COUNT_SW_TASK_CLOCK;
    attr.exclude_kernel = attr.exclude_hv = 1;
    if (syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0) >= 0)
        return puts("got a counter"), 0;
    puts(strerror(errno));
    return 1;
}
