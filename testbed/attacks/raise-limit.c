// tries: more open files than the pool allows
// as: root
// wall: limit of open files
// expect: Operation not permitted
// no-control: who may raise it may do so on the whole host

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/resource.h>

int main(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_max *= 2;
    if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
        return puts("got more"), 0;
    puts(strerror(errno));
    return 1;
}
