// tries: the memory of a process of the job next door
// as: root
// wall: PID namespace
// expect: No such process
// without: service --property=Type=exec

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

int main(void) {
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)4096, 1};
    /* No memory is at that address, and the kernel checks the right before the address. */
    if (process_vm_readv(atoi(getenv("SIBLING_LEADER")), &here, 1, &there, 1, 0) == 1 || errno == EFAULT)
        return puts("got to read it"), 0;
    puts(strerror(errno));
    return 1;
}
