// tries: to flood the host's systemd with status texts, escapes included, in the name of process 1
// as: root
// wall: notifications end at the launcher's relay
// expect: no word in the status
// without: nspawn NOTIFY_SOCKET=/run/systemd/notify
// witness: for try in 1 2 3 4 5 6 7 8; do systemctl show --value --property=StatusText $UNIT | grep -q attack && { echo "got its words into systemctl status"; exit 0; }; sleep 0.2; done;
//   echo "no word in the status"; exit 1

#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    int notify = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "/run/host/notify"};
    if (connect(notify, (struct sockaddr *)&to, sizeof to) != 0)
        return perror("connect"), 2;
    struct iovec text = {"STATUS=attack \033[2J", sizeof "STATUS=attack \033[2J" - 1};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(struct ucred))];
    } control = {.head = {.cmsg_len = CMSG_LEN(sizeof(struct ucred)),
                          .cmsg_level = SOL_SOCKET,
                          .cmsg_type = SCM_CREDENTIALS}};
    /* The container's root may name any process of its PID namespace as the sender. */
    struct ucred first = {.pid = 1, .uid = 0, .gid = 0};
    memcpy(CMSG_DATA(&control.head), &first, sizeof first);
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof control};
    time_t end = time(NULL) + 3;
    long sent = 0;
    while (time(NULL) < end)
        if (sendmsg(notify, &message, 0) > 0)
            sent++;
    printf("sent %ld\n", sent);
    return sent > 0 ? 0 : 2;
}
