// tries: a cgroup v1 hierarchy, whose release agent runs on the host
// as: root
// wall: user namespace
// expect: Operation not permitted
// no-control: only the first cgroup namespace of a machine may have one, and a test host is in another

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/mount.h>
#include <sys/stat.h>

int main(void) {
    mkdir("/tmp/cgroup", 0700);
    if (mount("none", "/tmp/cgroup", "cgroup", 0, "none,name=attack") == 0) {
        umount("/tmp/cgroup");
        return puts("got a hierarchy"), 0;
    }
    puts(strerror(errno));
    return 1;
}
