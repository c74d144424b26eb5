// tries: a file that belongs to an id of the host
// as: root
// wall: user namespace
// expect: Invalid argument
// without: nspawn --private-users=no

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <fcntl.h>

int main(void) {
    int file = open("/tmp/foreign", O_CREAT | O_RDWR, 0600);
    if (file < 0)
        return puts("no file"), 2;
    if (fchown(file, 70000, 70000) == 0) {
        unlink("/tmp/foreign");
        return puts("got a file of uid 70000"), 0;
    }
    int kept = errno;
    unlink("/tmp/foreign");
    errno = kept;
    puts(strerror(errno));
    return 1;
}
