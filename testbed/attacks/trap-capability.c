// tries: a program that has every capability on the host, for every user who starts it
// as: root
// in: bare
// wall: user namespace
// expect: of a namespace
// without: nspawn --private-users=no
// witness: python3 -c 'import os, sys; kind = os.getxattr("/proc/" + os.environ["LEADER"] + "/root/tmp/attack-cap", "security.capability")[3];
//   print("got one of the host" if kind == 2 else "of a namespace, version %d" % kind); sys.exit(kind != 2)'

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <linux/capability.h>
#include <sys/xattr.h>

int main(void) {
    struct vfs_cap_data all = {.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE};
    all.data[0].permitted = all.data[1].permitted = ~0u;
    int file = open("/tmp/attack-cap", O_CREAT | O_RDWR, 0755);
    if (file < 0 || fsetxattr(file, "security.capability", &all, XATTR_CAPS_SZ_2, 0) < 0)
        return puts(strerror(errno)), 2;
    return 0;
}
