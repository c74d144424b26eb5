// Takes one table of the kernel as far as it goes, says so in a file, and holds what it has.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const char *address;

static int inotify(int number) {
    (void)number;
    return inotify_init1(IN_CLOEXEC) >= 0;
}

static int terminal(int number) {
    (void)number;
    return posix_openpt(O_RDWR | O_NOCTTY) >= 0;
}

static int namespace(int number) {
    if (number == 0 && unshare(CLONE_NEWUSER) != 0)
        return 0;
    return unshare(CLONE_NEWUTS) == 0 && open("/proc/self/ns/uts", O_RDONLY) >= 0;
}

static int timer(int number) {
    (void)number;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    timer_t made;
    return timer_create(CLOCK_MONOTONIC, &event, &made) == 0;
}

static int queue(int number) {
    char name[32];
    snprintf(name, sizeof name, "/queue-%d", number);
    return mq_open(name, O_CREAT | O_RDWR, 0600, NULL) >= 0;
}

static int aio(int number) {
    aio_context_t context = 0;
    return number < 64 && syscall(SYS_io_setup, 1024, &context) == 0;
}

static int connection(int number) {
    static int from = -1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(20000 + number)};
    if (from < 0)
        from = socket(AF_INET, SOCK_DGRAM, 0);
    return inet_pton(AF_INET, address, &to.sin_addr) == 1 && number < 40000 &&
           sendto(from, "x", 1, 0, (struct sockaddr *)&to, sizeof to) == 1;
}

static const struct {
    const char *name;
    int (*take)(int);
} tables[] = {
    {"inotify", inotify},     {"terminals", terminal}, {"namespaces", namespace}, {"timers", timer},
    {"message-queues", queue}, {"aio", aio},           {"connections", connection},
};

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    address = argv[3];
    for (size_t table = 0; table < sizeof tables / sizeof *tables; table++) {
        if (strcmp(tables[table].name, argv[1]) != 0)
            continue;
        int taken = 0;
        while (taken < 60000 && tables[table].take(taken))
            taken++;
        FILE *said = fopen(argv[2], "w");
        if (said == NULL) {
            /* No descriptor is left for it. */
            close(3);
            said = fopen(argv[2], "w");
        }
        if (said == NULL)
            return 3;
        fprintf(said, "%d\n", taken);
        fclose(said);
        pause();
    }
    return 4;
}
