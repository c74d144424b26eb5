// tries: to have the kernel start a program of its choice on the host, by the core pattern
// as: root
// wall: user namespace
// expect: Permission denied
// without: nspawn --private-users=no

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <sys/mount.h>

int main(void) {
    char pattern[256];
    int file = open("/proc/sys/kernel/core_pattern", O_RDONLY);
    ssize_t length = read(file, pattern, sizeof pattern);
    if (length <= 0)
        return puts("cannot read it"), 2;
    close(file);
    if (mount("none", "/proc/sys", "", MS_REMOUNT | MS_BIND, "") == 0) {
        file = open("/proc/sys/kernel/core_pattern", O_WRONLY);
        /* To what it is. */
        if (file >= 0 && write(file, pattern, length) == length)
            return puts("got the core pattern"), 0;
    }
    puts(strerror(errno));
    return 1;
}
