// tries: to take the host's swap away
// as: root
// wall: system call filter
// expect: Operation not permitted
// given: nspawn --private-users=no
// without: nspawn !--system-call-filter +--system-call-filter=swapoff

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/swap.h>

int main(void) {
    /* No such file: who may do it at all is told so. */
    if (swapoff("/tmp/none") == 0 || errno == ENOENT)
        return puts("got as far as the file"), 0;
    puts(strerror(errno));
    return 1;
}
