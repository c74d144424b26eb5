// tries: services of the host, or of the machine below it, past the network and all its rules
// as: job
// wall: address families
// expect: Address family not supported by protocol
// without: unit RestrictAddressFamilies=

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(void) {
    /* A process with one reaches every listener on the machine; this attack only asks for it. */
    if (socket(AF_VSOCK, SOCK_STREAM, 0) >= 0)
        return puts("got a vsock"), 0;
    puts(strerror(errno));
    return 1;
}
