// tries: to fill the connection tracking table of the host
// as: job
// wall: firewall
// expect: and no more
// without: firewall
// witness: n=$(cat /proc/sys/net/netfilter/nf_conntrack_count);
//   if [ $n -gt 25000 ]; then echo "got $n entries";
//   elif [ $n -gt 6000 ]; then echo "$n entries, and no more"; exit 1;
//   else echo "only $n entries"; exit 2; fi

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(void) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    const char *internet = getenv("INTERNET");
    if (internet == NULL || inet_pton(AF_INET, internet, &to.sin_addr) != 1)
        return puts("no address"), 2;
    int from = socket(AF_INET, SOCK_DGRAM, 0);
    /* Each port is one more connection. The table keeps it for 30 s without an answer. */
    for (int port = 20000; port < 60000; port++) {
        to.sin_port = htons(port);
        if (sendto(from, "x", 1, 0, (struct sockaddr *)&to, sizeof to) != 1)
            return perror("send"), 2;
    }
    return puts("got 40000 packets out"), 0;
}
