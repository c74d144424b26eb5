// tries: a disk image that the job made, for a bug of a filesystem driver
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
#include <sys/mount.h>
#include <sys/stat.h>

int main(void) {
    mkdir("/tmp/disk", 0700);
    /* A driver that looks at it at all finds no disk. */
    if (mount("/proc/self/exe", "/tmp/disk", "ext4", 0, "") == 0 || errno == ENOTBLK)
        return puts("got as far as the driver"), 0;
    puts(strerror(errno));
    return 1;
}
