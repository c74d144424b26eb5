// tries: a core dump, which the host's core_pattern may send to the host's disk with every secret of the job
// as: job
// wall: no core dumps
// expect: no core dump
// without: nspawn +--rlimit=RLIMIT_CORE=infinity

#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    struct rlimit most;
    if (getrlimit(RLIMIT_CORE, &most) != 0)
        return perror("getrlimit"), 2;
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_CORE, &most);
    pid_t child = fork();
    if (child < 0)
        return perror("fork"), 2;
    if (child == 0) {
        if (chdir("/tmp") != 0)
            _exit(2);
        abort();
    }
    int status;
    if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status))
        return puts("it did not crash"), 2;
    if (WCOREDUMP(status))
        return puts("got a core dump"), 0;
    puts("no core dump");
    return 1;
}
