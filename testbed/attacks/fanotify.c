// tries: to watch files by fanotify, whose marks the kernel keeps for the whole machine
// as: job
// wall: system calls that a container never has
// expect: Operation not permitted
// without: nspawn !--system-call-filter +--system-call-filter=fanotify_init

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>

#ifndef FAN_REPORT_FID
#define FAN_REPORT_FID 0x200
#endif

int main(void) {
    if (fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID, O_RDONLY) >= 0)
        return puts("got a group"), 0;
    puts(strerror(errno));
    return 1;
}
