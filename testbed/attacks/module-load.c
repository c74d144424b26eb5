// tries: to load a module into the kernel
// as: root
// wall: capabilities
// expect: Operation not permitted
// no-control: the kernel below a test host may be without modules, and the one this was written on is

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>

int main(void) {
    /* No module: a kernel that would take one says so. */
    if (syscall(SYS_init_module, "none", 4, "") == 0 || errno == ENOEXEC)
        return puts("got as far as the loader"), 0;
    puts(strerror(errno));
    return 1;
}
