// tries: a vsock by io_uring, whose operations no system call filter sees
// as: job
// wall: no io_uring
// expect: io_uring_setup: Operation not permitted
// without: unit SystemCallFilter=

#define _GNU_SOURCE
#include <linux/io_uring.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    struct io_uring_params params = {0};
    int ring = syscall(SYS_io_uring_setup, 1, &params);
    if (ring < 0)
        return perror("io_uring_setup"), 1;
    size_t length = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    size_t completions = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    if (completions > length)
        length = completions;
    char *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entry = mmap(NULL, params.sq_entries * sizeof *entry, PROT_READ | PROT_WRITE,
                                      MAP_SHARED, ring, IORING_OFF_SQES);
    if (at == MAP_FAILED || entry == MAP_FAILED || !(params.features & IORING_FEAT_SINGLE_MMAP))
        return perror("mmap"), 2;
    memset(entry, 0, sizeof *entry);
    entry->opcode = IORING_OP_SOCKET;
    entry->fd = AF_VSOCK;
    entry->off = SOCK_STREAM;
    *(unsigned *)(at + params.sq_off.array) = 0;
    __atomic_fetch_add((unsigned *)(at + params.sq_off.tail), 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
        return perror("io_uring_enter"), 2;
    struct io_uring_cqe *completion = (struct io_uring_cqe *)(at + params.cq_off.cqes);
    if (completion->res >= 0)
        return puts("got a vsock"), 0;
    puts(strerror(-completion->res));
    return 1;
}
