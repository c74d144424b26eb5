// tries: keys that the job before left in its user's keyring, in a pool that may use keyrings
// as: root
// in: bare-lives
// wall: user namespace
// expect: Required key not available
// given: nspawn !--system-call-filter +--system-call-filter=add_key +--system-call-filter=keyctl
// without: nspawn --private-users=no

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>

enum { USER_KEYRING = -4, SEARCH = 10 };

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "plant") == 0) {
        long key = syscall(SYS_add_key, "user", "attack", "secret", 6L, (long)USER_KEYRING);
        if (key < 0)
            puts(strerror(errno));
        return key < 0 ? 2 : 0;
    }
    if (syscall(SYS_keyctl, (long)SEARCH, (long)USER_KEYRING, "user", "attack", 0L) >= 0)
        return puts("got the key"), 0;
    puts(strerror(errno));
    return 1;
}
