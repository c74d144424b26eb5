// tries: to load a program into the kernel
// as: root
// wall: system call filter
// expect: Operation not permitted
// given: nspawn --private-users=no
// without: nspawn !--system-call-filter +--system-call-filter=bpf

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <linux/bpf.h>

int main(void) {
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.map_type = BPF_MAP_TYPE_ARRAY;
    attr.key_size = attr.value_size = 4;
    attr.max_entries = 1;
    if (syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr) >= 0)
        return puts("got a map in the kernel"), 0;
    puts(strerror(errno));
    return 1;
}
