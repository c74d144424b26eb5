// tries: any file of the filesystem that its sockets are on, by handle
// as: root
// wall: system call filter
// expect: Operation not permitted
// given: nspawn --private-users=no
// given: capability CAP_DAC_READ_SEARCH
// without: nspawn !--system-call-filter +--system-call-filter=open_by_handle_at

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <stdlib.h>

int main(void) {
    struct file_handle *handle = calloc(1, sizeof *handle + 128);
    int mount;
    handle->handle_bytes = 128;
    if (name_to_handle_at(AT_FDCWD, "/run/runner/started", handle, &mount, 0) < 0) {
        printf("no handle: %s\n", strerror(errno));
        return 2;
    }
    int root = open("/run/runner", O_RDONLY | O_DIRECTORY);
    if (open_by_handle_at(root, handle, O_RDONLY) >= 0)
        return puts("got it"), 0;
    puts(strerror(errno));
    return 1;
}
