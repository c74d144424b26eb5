// tries: to take the pseudo terminals of every container
// as: job
// wall: maximum of /dev/pts
// expect: No space left on device
// without: host perl -e '$fd = syscall(433, -100, "/proc/$ENV{LEADER}/root/dev/pts", 0);
//   sub set { my ($key, $value) = map { "$_" } @_; syscall(431, $fd, 1, $key, $value, 0) == 0 or die "$key: $!" }
//   set(gid => $ENV{UID_FIRST} + 5); set(mode => 620); set(ptmxmode => 666); set(max => 100000);
//   syscall(431, $fd, 7, 0, 0, 0) == 0 or die "reconfigure: $!"'
//   undo perl -e '$fd = syscall(433, -100, "/proc/$ENV{LEADER}/root/dev/pts", 0);
//   sub set { my ($key, $value) = map { "$_" } @_; syscall(431, $fd, 1, $key, $value, 0) == 0 or die "$key: $!" }
//   set(gid => $ENV{UID_FIRST} + 5); set(mode => 620); set(ptmxmode => 666); set(max => 1024);
//   syscall(431, $fd, 7, 0, 0, 0) == 0 or die "reconfigure: $!"'

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* More than a runner's part, and less than would disturb the machine. */
enum { WANTED = 2000, LEAST = 900 };

int main(void) {
    struct rlimit files;
    int made = 0;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    while (made < WANTED && posix_openpt(O_RDWR | O_NOCTTY) >= 0)
        made++;
    if (made == WANTED)
        return printf("got %d terminals\n", made), 0;
    if (made < LEAST)
        return printf("only %d terminals: %s\n", made, strerror(errno)), 2;
    printf("%d terminals: %s\n", made, strerror(errno));
    return 1;
}
