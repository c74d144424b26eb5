// tries: to take the memory for message queues of every container and of the host's root
// as: job
// wall: limit of message queues
// expect: Too many open files
// without: nspawn --rlimit=RLIMIT_MSGQUEUE=900000

#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <string.h>

/* Each queue has room for ten messages of 8 KiB. */
enum { WANTED = 6 };

int main(void) {
    char name[32];
    int made = 0, why = 0;
    for (; made < WANTED; made++) {
        snprintf(name, sizeof name, "/queue-%d", made);
        if (mq_open(name, O_CREAT | O_RDWR, 0600, NULL) < 0) {
            why = errno;
            break;
        }
    }
    for (int number = 0; number < made; number++) {
        snprintf(name, sizeof name, "/queue-%d", number);
        mq_unlink(name);
    }
    if (made == WANTED)
        return printf("got %d queues\n", made), 0;
    if (made == 0)
        return printf("not one queue: %s\n", strerror(why)), 2;
    printf("%d queues: %s\n", made, strerror(why));
    return 1;
}
