// tries: to take the timers and pending signals of every container and of the host's root
// as: job
// wall: limit of pending signals
// expect: Resource temporarily unavailable
// without: nspawn --rlimit=RLIMIT_SIGPENDING=5000

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* More than a runner's part, and less than would disturb the machine. */
enum { WANTED = 4096, LEAST = 900 };

int main(void) {
    struct sigevent none = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    int made = 0;
    timer_t timer;
    while (made < WANTED && timer_create(CLOCK_MONOTONIC, &none, &timer) == 0)
        made++;
    if (made == WANTED)
        return printf("got %d timers\n", made), 0;
    if (made < LEAST)
        return printf("only %d timers: %s\n", made, strerror(errno)), 2;
    printf("%d timers: %s\n", made, strerror(errno));
    return 1;
}
