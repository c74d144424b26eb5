// tries: a kernel keyring, where systemd-nspawn allows keyrings by default, as it does since systemd 258
// as: job
// wall: system calls that a container never has
// given: nspawn +--system-call-filter=@keyring
// expect: Operation not permitted
// without: nspawn !--system-call-filter +--system-call-filter=@keyring

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
