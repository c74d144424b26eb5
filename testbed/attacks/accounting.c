// tries: to have the kernel write of every process into a file
// as: root
// wall: capabilities
// expect: Operation not permitted
// given: nspawn --private-users=no
// without: capability CAP_SYS_PACCT

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>

int main(void) {
    /* Off, which it is. */
    if (acct(0) == 0)
        return puts("got to switch it"), 0;
    puts(strerror(errno));
    return 1;
}
