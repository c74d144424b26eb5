// tries: to take the requests of asynchronous I/O of every container and of the host
// as: job
// wall: fs.aio-max-nr
// expect: are left for the others
// no-control: the maximum is that of the machine below the test host
// witness: left=$(($(cat /proc/sys/fs/aio-max-nr) - $(cat /proc/sys/fs/aio-nr)));
//   if [ $left -lt 65536 ]; then echo "got all but $left requests";
//   else echo "$left requests are left for the others"; exit 1; fi

#include <linux/aio_abi.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Contexts of 4096 requests: together more than the kernel's default for all, 65,536. */
enum { REQUESTS = 4096, CONTEXTS = 32 };

int main(void) {
    int done[2], made = 0;
    if (pipe(done) != 0)
        return perror("pipe"), 2;
    /* The requests are of this process, which holds them until its container ends. */
    if (fork() == 0) {
        for (; made < CONTEXTS; made++) {
            aio_context_t context = 0;
            if (syscall(SYS_io_setup, REQUESTS, &context) != 0)
                break;
        }
        if (write(done[1], &made, sizeof made) == sizeof made) {
            for (int file = 0; file < 10; file++)
                close(file);
            pause();
        }
        _exit(0);
    }
    if (read(done[0], &made, sizeof made) != sizeof made || made == 0)
        return puts("no context"), 2;
    return printf("got %d requests\n", made * REQUESTS), 0;
}
