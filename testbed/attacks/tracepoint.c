// tries: to see every process of the machine, by the kernel's trace filesystem
// as: root
// wall: user namespace
// expect: Operation not permitted
// without: nspawn --private-users=no

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

int main(void) {
    mkdir("/tmp/trace", 0700);
    /* A kernel without it says that it does not know the filesystem, and does so only to root of the host. */
    if (mount("tracefs", "/tmp/trace", "tracefs", 0, "") == 0 || errno == ENODEV)
        return puts("got as far as the filesystem"), 0;
    puts(strerror(errno));
    return 1;
}
