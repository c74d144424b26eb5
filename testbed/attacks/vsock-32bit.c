// tries: a vsock by the calls of 32-bit programs, which the filter of address families does not see
// as: job
// wall: native system calls only
// expect: SIGSYS ended socket and socketcall
// without: unit SystemCallArchitectures=

#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#if !defined(__x86_64__)
#error "only x86_64 has these two calls"
#endif

/* A call of the 32-bit ABI, which every 64-bit program can make. */
static int call32(int number, long first, long second, long third) {
    int result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(first), "c"(second), "d"(third)
                     : "memory", "cc", "r8", "r9", "r10", "r11");
    return result;
}

/* The signal that ends a child which makes this call, or 0 if the call gives it a vsock. */
static int tried(int number, long first, long second, long third) {
    pid_t child = fork();
    int status;
    if (child == 0)
        _exit(call32(number, first, second, third) >= 0 ? 0 : 1);
    if (child < 0 || waitpid(child, &status, 0) != child)
        return -1;
    if (WIFSIGNALED(status))
        return WTERMSIG(status);
    return WEXITSTATUS(status) == 0 ? 0 : -1;
}

int main(void) {
    unsigned *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (low == MAP_FAILED)
        return perror("mmap"), 2;
    low[0] = AF_VSOCK, low[1] = SOCK_STREAM, low[2] = 0;
    int socket32 = tried(359 /* socket */, AF_VSOCK, SOCK_STREAM, 0);
    int socketcall = tried(102 /* socketcall */, 1 /* SYS_SOCKET */, (long)low, 0);
    if (socket32 == 0 || socketcall == 0)
        return printf("got a vsock by%s%s\n", socket32 ? "" : " socket", socketcall ? "" : " socketcall"), 0;
    if (socket32 == SIGSYS && socketcall == SIGSYS)
        puts("SIGSYS ended socket and socketcall");
    else
        printf("socket %d, socketcall %d\n", socket32, socketcall);
    return 1;
}
