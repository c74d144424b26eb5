// tries: the inner workings of the kernel, by mounting them
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
    mkdir("/tmp/debug", 0700);
    if (mount("none", "/tmp/debug", "debugfs", 0, "") == 0) {
        umount("/tmp/debug");
        return puts("got the debug filesystem"), 0;
    }
    puts(strerror(errno));
    return 1;
}
