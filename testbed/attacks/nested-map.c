// tries: a nested user namespace, with an id of the host in its map
// as: root
// wall: user namespace
// expect: Operation not permitted
// without: nspawn --private-users=no

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/wait.h>

int main(void) {
    int go[2], came[2];
    if (pipe(go) || pipe(came))
        return 2;
    pid_t child = fork();
    if (child == 0) {
        char c;
        if (unshare(CLONE_NEWUSER))
            _exit(2);
        if (write(came[1], "x", 1) != 1 || read(go[0], &c, 1) != 1)
            _exit(2);
        _exit(0);
    }
    char c, path[64];
    if (read(came[0], &c, 1) != 1)
        return puts("no namespace"), 2;
    snprintf(path, sizeof path, "/proc/%d/uid_map", child);
    int map = open(path, O_WRONLY);
    /* The id 70000 has no user in the container, and may have one on the host. */
    ssize_t wrote = write(map, "0 70000 1\n", 10);
    int kept = errno;
    if (write(go[1], "x", 1) != 1)
        return 2;
    waitpid(child, 0, 0);
    errno = kept;
    if (wrote == 10)
        return puts("got the map"), 0;
    puts(strerror(errno));
    return 1;
}
