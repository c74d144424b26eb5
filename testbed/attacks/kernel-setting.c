// tries: to change settings of the whole machine and to move its interrupts, by a new mount of /proc
// as: root
// wall: user namespace
// expect: Permission denied
// without: nspawn --private-users=no

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int open_it(void) {
    /* The container's own mount is read-only there. This one is new. */
    mkdir("/tmp/own-proc", 0755);
    if (mount("proc", "/tmp/own-proc", "proc", 0, NULL) != 0)
        return printf("no proc: %s\n", strerror(errno)), 2;
    const char *files[] = {"sys/kernel/threads-max", "irq/default_smp_affinity"};
    char path[64];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/tmp/own-proc/%s", files[i]);
        if (open(path, O_WRONLY) >= 0)
            return printf("got to write %s\n", files[i]), 0;
    }
    puts(strerror(errno));
    return 1;
}

int main(void) {
    if (unshare(CLONE_NEWNS | CLONE_NEWPID) != 0)
        return perror("unshare"), 2;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return perror("private"), 2;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int status = open_it();
        fflush(stdout);
        _exit(status);
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}
