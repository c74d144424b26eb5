// tries: what the kernel tells of the host and of others
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
#include <sys/klog.h>

int main(void) {
    char text[4096];
    if (klogctl(3 /* read all */, text, sizeof text) >= 0)
        return puts("got the log"), 0;
    puts(strerror(errno));
    return 1;
}
