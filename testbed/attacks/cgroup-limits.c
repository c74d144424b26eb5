// tries: to lift a limit of the container's cgroup
// as: root
// wall: user namespace
// expect: Permission denied
// without: nspawn --private-users=no

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <fcntl.h>

int main(void) {
    int file = open("/sys/fs/cgroup/cgroup.max.descendants", O_RDWR);
    if (file >= 0 && write(file, "max\n", 4) == 4)
        return puts("got to lift it"), 0;
    puts(strerror(errno));
    return 1;
}
