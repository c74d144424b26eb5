// tries: to search kernel keyrings, which can start /sbin/request-key as root of the host
// as: job
// wall: system calls that a container never has
// expect: Operation not permitted
// without: nspawn !--system-call-filter +--system-call-filter=request_key

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    if (syscall(SYS_request_key, "user", "attack", NULL, 0) >= 0 || errno == ENOKEY)
        return puts("got to search them"), 0;
    puts(strerror(errno));
    return 1;
}
