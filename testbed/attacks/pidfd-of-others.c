// tries: open files of a process of the host, by a descriptor of that process
// as: root
// wall: PID namespace
// expect: No such process
// without: service --property=Type=exec

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    int process = syscall(SYS_pidfd_open, atoi(getenv("SIBLING_LEADER")), 0);
    if (process < 0)
        return printf("pidfd_open: %s\n", strerror(errno)), 1;
    /* Its standard input, which every process 1 has. */
    if (syscall(SYS_pidfd_getfd, process, 0, 0) >= 0)
        return puts("got an open file of another process"), 0;
    printf("pidfd_getfd: %s\n", strerror(errno));
    return 1;
}
