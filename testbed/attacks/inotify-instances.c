// tries: to take the inotify instances of every container and of the host's root
// as: job
// wall: maxima of the user namespace
// expect: Too many open files
// without: host nsenter --user --target $LEADER sh -c 'echo 100000 >/proc/sys/user/max_inotify_instances'
//   undo nsenter --user --target $LEADER sh -c 'echo 1024 >/proc/sys/user/max_inotify_instances'

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/resource.h>

/* More than a runner's part, and less than would disturb the machine. */
enum { WANTED = 4096, LEAST = 900 };

int main(void) {
    struct rlimit files;
    int made = 0;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    while (made < WANTED && inotify_init1(IN_CLOEXEC) >= 0)
        made++;
    if (made == WANTED)
        return printf("got %d instances\n", made), 0;
    /* With fewer than its part, another container has the rest. */
    if (made < LEAST)
        return printf("only %d instances: %s\n", made, strerror(errno)), 2;
    printf("%d instances: %s\n", made, strerror(errno));
    return 1;
}
