// tries: a disk image that the job made, by the newer calls for mounts
// as: root
// wall: user namespace
// expect: Operation not permitted
// without: nspawn --private-users=no

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SET_STRING = 1, CREATE = 6 };

int main(void) {
    int disk = syscall(SYS_fsopen, "ext4", 0);
    if (disk < 0)
        return printf("fsopen: %s\n", strerror(errno)), 1;
    if (syscall(SYS_fsconfig, disk, SET_STRING, "source", "/proc/self/exe", 0) != 0)
        return printf("source: %s\n", strerror(errno)), 2;
    /* A driver that looks at it at all finds no disk. */
    if (syscall(SYS_fsconfig, disk, CREATE, NULL, NULL, 0) == 0 || errno == ENOTBLK)
        return puts("got as far as the driver"), 0;
    puts(strerror(errno));
    return 1;
}
