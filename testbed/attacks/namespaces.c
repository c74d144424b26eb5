// tries: to take the namespaces of every container and of the host's services
// as: job
// wall: maxima of the user namespace
// expect: No space left on device
// without: host nsenter --user --target $LEADER sh -c 'echo 100000 >/proc/sys/user/max_uts_namespaces'
//   undo nsenter --user --target $LEADER sh -c 'echo 1024 >/proc/sys/user/max_uts_namespaces'

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* More than a runner's part, and less than would disturb the machine. */
enum { WANTED = 4096, LEAST = 900 };

int main(void) {
    struct rlimit files;
    int made = 0;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (unshare(CLONE_NEWUSER) != 0)
        return perror("a user namespace"), 2;
    while (made < WANTED && unshare(CLONE_NEWUTS) == 0) {
        /* The file keeps the namespace when the process leaves it. */
        if (open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC) < 0)
            return perror("keep a namespace"), 2;
        made++;
    }
    if (made == WANTED)
        return printf("got %d namespaces\n", made), 0;
    if (made < LEAST)
        return printf("only %d namespaces: %s\n", made, strerror(errno)), 2;
    printf("%d namespaces: %s\n", made, strerror(errno));
    return 1;
}
