// tries: to set the clock of the machine
// as: root
// wall: user namespace and capabilities
// expect: Operation not permitted
// without: service --property=Type=exec

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/timex.h>

int main(void) {
    struct timex now = {0};
    /* To what it is: a clock that can be set is set to the same. */
    if (adjtimex(&now) >= 0 && (now.modes = ADJ_TICK) && adjtimex(&now) >= 0)
        return puts("got to set it"), 0;
    puts(strerror(errno));
    return 1;
}
