// tries: to send signals to the job next door, by a descriptor of its process 1
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
    /* The null signal, which only shows that another one would arrive. */
    if (syscall(SYS_pidfd_send_signal, process, 0, NULL, 0) == 0)
        return puts("got to send signals"), 0;
    printf("pidfd_send_signal: %s\n", strerror(errno));
    return 1;
}
