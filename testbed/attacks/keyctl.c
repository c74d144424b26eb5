// tries: a kernel keyring, for keys that another user left in one
// as: job
// wall: system call filter
// expect: Operation not permitted
// without: nspawn !--system-call-filter +--system-call-filter=add_key +--system-call-filter=keyctl

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>

int main(void) {
    if (syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, 0) >= 0)
        return puts("got a keyring"), 0;
    puts(strerror(errno));
    return 1;
}
