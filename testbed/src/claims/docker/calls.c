// Which system calls a filter refuses: each is made in a child, with arguments that are no good.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    for (long call = 0; call < 470; call++) {
        int status;
        pid_t child;
        // They end or stop the caller, or never return.
        if (call == SYS_exit || call == SYS_exit_group || call == SYS_pause || call == SYS_vhangup)
            continue;
        fflush(stdout);
        child = fork();
        if (child == 0) {
            alarm(1);
            errno = 0;
            long result = syscall(call, -1L, -1L, -1L, -1L, -1L, -1L);
            _exit(result == -1 && (errno == EPERM || errno == ENOSYS) ? errno : 0);
        }
        if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status))
            printf("refused %ld\n", call);
    }
    printf("add_key %d keyctl %d\n", SYS_add_key, SYS_keyctl);
    return 0;
}
