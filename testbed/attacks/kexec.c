// tries: to boot another kernel
// as: root
// wall: capabilities
// expect: Operation not permitted
// no-control: the kernel of a test host is its machine's, and no control may replace that

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>

int main(void) {
    /* No segments: would only forget a kernel that was loaded. */
    if (syscall(SYS_kexec_load, 0, 0, 0, 0) == 0)
        return puts("got to load a kernel"), 0;
    puts(strerror(errno));
    return 1;
}
