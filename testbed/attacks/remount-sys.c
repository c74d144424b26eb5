// tries: to make /sys writable
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

int main(void) {
    if (mount("none", "/sys", "", MS_REMOUNT | MS_BIND, "") == 0)
        return puts("got /sys"), 0;
    puts(strerror(errno));
    return 1;
}
