// Takes one table of the kernel as far as it goes, says so in a file, and holds what it has.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <mqueue.h>
#include <netinet/ip.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Ends a program whose table has no end. */
enum { MOST = 1 << 20 };

static const char *address;

static int inotify(int number) {
    (void)number;
    return inotify_init1(IN_CLOEXEC) >= 0;
}

/* Marks of files: a few instances watch the same files, and each mark counts. A file with many marks is slow. */
static int watch(int number) {
    static int instance = -1;
    enum { FILES = 8192 };
    char name[48];
    if (number % FILES == 0)
        instance = inotify_init1(IN_CLOEXEC);
    snprintf(name, sizeof name, "/tmp/watched-%d", number % FILES);
    if (number < FILES)
        close(creat(name, 0600));
    return inotify_add_watch(instance, name, IN_MODIFY) >= 0;
}

static int epoll_watch(int number) {
    static int events[1024], poll = -1;
    enum { EVENTS = sizeof events / sizeof *events };
    struct epoll_event event = {.events = EPOLLIN};
    if (number < EVENTS)
        events[number] = eventfd(0, EFD_CLOEXEC);
    if (number % EVENTS == 0)
        poll = epoll_create1(EPOLL_CLOEXEC);
    return epoll_ctl(poll, EPOLL_CTL_ADD, events[number % EVENTS], &event) == 0;
}

static int key(int number) {
    char name[32];
    snprintf(name, sizeof name, "key-%d", number);
    /* -2 is the keyring of the process (KEY_SPEC_PROCESS_KEYRING). */
    return syscall(SYS_add_key, "user", name, "x", 1L, -2L) >= 0;
}

/* Each has 256 pages. */
static int pipe_pages(int number) {
    int ends[2];
    (void)number;
    return pipe2(ends, O_CLOEXEC) == 0 && fcntl(ends[1], F_SETPIPE_SZ, 1 << 20) >= 0;
}

/* A message with 250 files that no process receives. */
static int in_flight(int number) {
    enum { FILES = 250, MESSAGES = 64 };
    static int pair[2];
    char control[CMSG_SPACE(FILES * sizeof(int))] = {0};
    struct iovec text = {.iov_base = "x", .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &text, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *files = CMSG_FIRSTHDR(&message);
    if (number % MESSAGES == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
        return 0;
    files->cmsg_level = SOL_SOCKET;
    files->cmsg_type = SCM_RIGHTS;
    files->cmsg_len = CMSG_LEN(FILES * sizeof(int));
    for (int at = 0; at < FILES; at++)
        ((int *)CMSG_DATA(files))[at] = STDIN_FILENO;
    return sendmsg(pair[0], &message, 0) == 1;
}

static int semaphore(int number) {
    (void)number;
    return semget(IPC_PRIVATE, 1, 0600) >= 0;
}

static int control_group(int number) {
    char name[48];
    snprintf(name, sizeof name, "/sys/fs/cgroup/taken-%d", number);
    return mkdir(name, 0755) == 0;
}

/* In a mount namespace of the program, so that the container's systemd does not read every one. On many
   directories, because a path is followed through all mounts on it. */
static int mounted(int number) {
    enum { DIRECTORIES = 1000 };
    char name[32];
    if (number == 0 && (unshare(CLONE_NEWNS) != 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0))
        return 0;
    snprintf(name, sizeof name, "/tmp/mounted-%d", number % DIRECTORIES);
    if (number < DIRECTORIES)
        mkdir(name, 0700);
    return mount(name, name, NULL, MS_BIND, NULL) == 0;
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

/* First fragments of packets that never become complete. */
static int fragment(int number) {
    static int from = -1;
    static char packet[1500];
    struct sockaddr_in to = {.sin_family = AF_INET};
    struct iphdr *header = (struct iphdr *)packet;
    if (from < 0)
        from = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    if (number >= 10000 || inet_pton(AF_INET, address, &to.sin_addr) != 1)
        return 0;
    *header = (struct iphdr){
        .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .id = htons(number + 1),
        .frag_off = htons(0x2000), .daddr = to.sin_addr.s_addr,
    };
    return sendto(from, packet, sizeof packet, 0, (struct sockaddr *)&to, sizeof to) == sizeof packet;
}

static const struct {
    const char *name;
    int (*take)(int);
} tables[] = {
    {"inotify", inotify},
    {"inotify-watches", watch},
    {"epoll-watches", epoll_watch},
    {"keys", key},
    {"pipes", pipe_pages},
    {"files-in-flight", in_flight},
    {"semaphores", semaphore},
    {"terminals", terminal},
    {"namespaces", namespace},
    {"timers", timer},
    {"message-queues", queue},
    {"aio", aio},
    {"mounts", mounted},
    {"connections", connection},
    {"fragments", fragment},
    {"control-groups", control_group},
};

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    address = argv[3];
    for (size_t table = 0; table < sizeof tables / sizeof *tables; table++) {
        if (strcmp(tables[table].name, argv[1]) != 0)
            continue;
        int taken = 0;
        while (taken < MOST && tables[table].take(taken))
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
