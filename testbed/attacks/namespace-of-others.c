// tries: to enter the network of the job next door, by a host's /proc that it somehow sees
// as: root
// wall: user namespace
// expect: Permission denied
// given: nspawn +--bind-ro=/proc:/run/host-proc
// without: nspawn --private-users=no

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char path[64];
    snprintf(path, sizeof path, "/run/host-proc/%s/ns/net", getenv("SIBLING_LEADER"));
    int network = open(path, O_RDONLY | O_CLOEXEC);
    if (network < 0)
        return printf("open: %s\n", strerror(errno)), 1;
    if (setns(network, CLONE_NEWNET) == 0)
        return puts("got into its network"), 0;
    printf("setns: %s\n", strerror(errno));
    return 1;
}
