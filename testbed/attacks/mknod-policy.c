// tries: a node of the host's disk, by being root of the host in all but name
// as: root
// wall: device policy
// expect: Operation not permitted
// given: nspawn --private-users=no
// given: capability CAP_MKNOD
// without: unit DevicePolicy=auto; DeviceAllow=

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

int main(void) {
    unlink("/tmp/disk");
    if (mknod("/tmp/disk", S_IFBLK | 0600, makedev(7, 0)) == 0) {
        unlink("/tmp/disk");
        return puts("got a node"), 0;
    }
    puts(strerror(errno));
    return 1;
}
