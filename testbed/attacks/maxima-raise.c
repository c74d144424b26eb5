// tries: to raise the maxima of the container's user namespace, by a new mount of /proc
// as: root
// wall: capabilities
// expect: Permission denied
// without: capability CAP_SYS_RESOURCE

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

static int raise_it(void) {
    mkdir("/tmp/own-proc", 0755);
    if (mount("proc", "/tmp/own-proc", "proc", 0, NULL) != 0)
        return printf("no proc: %s\n", strerror(errno)), 2;
    int setting = open("/tmp/own-proc/sys/user/max_inotify_instances", O_WRONLY);
    if (setting < 0 || write(setting, "100001", 6) != 6)
        return puts(strerror(errno)), 1;
    return puts("got a higher maximum"), 0;
}

int main(void) {
    if (unshare(CLONE_NEWNS | CLONE_NEWPID) != 0)
        return perror("unshare"), 2;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return perror("private"), 2;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int status = raise_it();
        fflush(stdout);
        _exit(status);
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}
