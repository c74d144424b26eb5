// tries: to take the pseudo terminals of every container, on a /dev/pts that it mounted itself
// as: job
// wall: maximum of user namespaces
// expect: No space left on device
// given: host nsenter --user --target $LEADER sh -c 'echo 0 >/proc/sys/user/max_user_namespaces'
//   undo nsenter --user --target $LEADER sh -c 'echo 1024 >/proc/sys/user/max_user_namespaces'
// in: job
// without: host nsenter --user --target $LEADER sh -c 'echo 1024 >/proc/sys/user/max_user_namespaces' undo true

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* More than a runner's part, and less than would disturb the machine. */
enum { WANTED = 1500 };

static int put(const char *file, const char *text) {
    int to = open(file, O_WRONLY);
    int failed = to < 0 || write(to, text, strlen(text)) < 0;
    if (to >= 0)
        close(to);
    return failed;
}

int main(void) {
    struct rlimit files;
    char map[32];
    int made = 0;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    snprintf(map, sizeof map, "0 %d 1", getuid());
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
        return printf("unshare: %s\n", strerror(errno)), 1;
    if (put("/proc/self/uid_map", map))
        return perror("map"), 2;
    mkdir("/tmp/own-pts", 0700);
    if (mount("devpts", "/tmp/own-pts", "devpts", 0, "newinstance,ptmxmode=0666") != 0)
        return printf("mount: %s\n", strerror(errno)), 1;
    while (made < WANTED && open("/tmp/own-pts/ptmx", O_RDWR | O_NOCTTY) >= 0)
        made++;
    if (made == WANTED)
        return printf("got %d terminals\n", made), 0;
    printf("%d terminals: %s\n", made, strerror(errno));
    return 2;
}
