// tries: to stop the kernel in the middle of a copy, as exploits of races do
// as: root
// wall: user namespace
// expect: Operation not permitted
// without: nspawn --private-users=no

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <fcntl.h>

int main(void) {
    if (syscall(SYS_userfaultfd, O_CLOEXEC) >= 0)
        return puts("got a descriptor"), 0;
    puts(strerror(errno));
    return 1;
}
