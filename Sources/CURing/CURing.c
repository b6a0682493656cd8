#include "CURing.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define CURING_GROUPS 64

struct group {
    struct io_uring_buf_ring *ring;
    unsigned mask;
    char *base;
    size_t stride;
    size_t length;
};

struct curing {
    struct io_uring ring;
    struct msghdr receive_template;  // only its name and control lengths are read
    struct group groups[CURING_GROUPS];
};

_Static_assert(sizeof(struct curing_receive_header) == sizeof(struct io_uring_recvmsg_out), "receive header");

curing *curing_create(unsigned submissions, unsigned completions, unsigned name_length, unsigned control_length, int *error) {
    curing *ring = calloc(1, sizeof *ring);
    if (ring == NULL) {
        *error = -ENOMEM;
        return NULL;
    }
    struct io_uring_params parameters = {
        .flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER |
                 IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED,
        .cq_entries = completions,
    };
    *error = io_uring_queue_init_params(submissions, &ring->ring, &parameters);
    if (*error < 0) {
        free(ring);
        return NULL;
    }
    ring->receive_template.msg_namelen = name_length;
    ring->receive_template.msg_controllen = control_length;
    return ring;
}

int curing_enable(curing *ring) {
    // liburing 2.3 declares io_uring_enable_rings but does not export it.
    int result = io_uring_register((unsigned)ring->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    // Where it works, entering the ring takes no reference on its file; it is the calling thread's, as the ring is from here on.
    if (result >= 0) io_uring_register_ring_fd(&ring->ring);
    return result;
}

int curing_destroy(curing *ring) {
    struct io_uring_sync_cancel_reg cancel = {
        .flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL,
        .fd = -1,
        .timeout = {.tv_sec = 1},
    };
    int result = io_uring_register_sync_cancel(&ring->ring, &cancel);
    if (result == -ENOENT) result = 0;  // nothing was armed
    for (unsigned group = 0; group < CURING_GROUPS; group++) curing_remove_group(ring, group);
    io_uring_queue_exit(&ring->ring);
    free(ring);
    return result;
}

int curing_add_group(curing *ring, unsigned index, unsigned slots, void *base, size_t stride, size_t length) {
    if (index >= CURING_GROUPS || slots == 0 || slots > 32768) return -EINVAL;
    struct group *group = &ring->groups[index];
    unsigned entries = 1;
    while (entries < slots) entries *= 2;
    size_t bytes = (entries * sizeof(struct io_uring_buf) + 4095) / 4096 * 4096;
    group->ring = aligned_alloc(4096, bytes);
    if (group->ring == NULL) return -ENOMEM;
    memset(group->ring, 0, bytes);
    struct io_uring_buf_reg registration = {
        .ring_addr = (uint64_t)(uintptr_t)group->ring, .ring_entries = entries, .bgid = (uint16_t)index};
    int result = io_uring_register_buf_ring(&ring->ring, &registration, 0);
    if (result < 0) {
        free(group->ring);
        group->ring = NULL;
        return result;
    }
    group->mask = entries - 1;
    group->base = base;
    group->stride = stride;
    group->length = length;
    io_uring_buf_ring_init(group->ring);
    for (unsigned slot = 0; slot < slots; slot++) {
        io_uring_buf_ring_add(group->ring, group->base + slot * stride, (unsigned)length, (unsigned short)slot, (int)group->mask, (int)slot);
    }
    io_uring_buf_ring_advance(group->ring, (int)slots);
    return 0;
}

void curing_remove_group(curing *ring, unsigned index) {
    struct group *group = &ring->groups[index];
    if (group->ring == NULL) return;
    io_uring_unregister_buf_ring(&ring->ring, (int)index);
    free(group->ring);
    group->ring = NULL;
}

void curing_provide(curing *ring, unsigned index, const uint16_t *slots, unsigned count) {
    struct group *group = &ring->groups[index];
    for (unsigned i = 0; i < count; i++) {
        io_uring_buf_ring_add(group->ring, group->base + slots[i] * group->stride, (unsigned)group->length, slots[i], (int)group->mask, (int)i);
    }
    io_uring_buf_ring_advance(group->ring, (int)count);
}

// A free submission entry; what is queued goes to the kernel if there is none.
static struct io_uring_sqe *next_entry(curing *ring) {
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
    if (entry != NULL) return entry;
    io_uring_submit(&ring->ring);
    return io_uring_get_sqe(&ring->ring);
}

int curing_receive(curing *ring, int descriptor, unsigned group, uint64_t tag) {
    struct io_uring_sqe *entry = next_entry(ring);
    if (entry == NULL) return -EBUSY;
    io_uring_prep_recvmsg_multishot(entry, descriptor, &ring->receive_template, 0);
    entry->flags |= IOSQE_BUFFER_SELECT;
    entry->buf_group = (uint16_t)group;
    io_uring_sqe_set_data64(entry, tag);
    return 0;
}

int curing_poll(curing *ring, int descriptor, uint64_t tag) {
    struct io_uring_sqe *entry = next_entry(ring);
    if (entry == NULL) return -EBUSY;
    io_uring_prep_poll_add(entry, descriptor, POLLIN);
    io_uring_sqe_set_data64(entry, tag);
    return 0;
}

int curing_cancel(curing *ring, uint64_t tag) {
    int submitted = io_uring_submit(&ring->ring);  // it may still be queued
    if (submitted < 0) return submitted;
    struct io_uring_sync_cancel_reg cancel = {.addr = tag, .fd = -1, .timeout = {.tv_sec = 1}};
    int result = io_uring_register_sync_cancel(&ring->ring, &cancel);
    return result == -ENOENT ? 0 : result;
}

int curing_send(curing *ring, int descriptor, void *headers, size_t stride, unsigned count, uint64_t tag) {
    for (unsigned i = 0; i < count; i++) {
        struct io_uring_sqe *entry = next_entry(ring);
        if (entry == NULL) return -EBUSY;
        // MSG_DONTWAIT: the kernel neither parks a datagram nor hands it to a helper thread, so that every send has ended when the
        // submission returns and its memory may be used again.
        struct msghdr *header = (struct msghdr *)((char *)headers + i * stride);
        if (header->msg_controllen == 0 && header->msg_iovlen == 1) {
            // One datagram to one address: the kernel need not copy a header and a vector in. Kernel 6.1 takes the address here.
            io_uring_prep_send(entry, descriptor, header->msg_iov->iov_base, header->msg_iov->iov_len, MSG_DONTWAIT);
            entry->addr2 = (uint64_t)(uintptr_t)header->msg_name;
            entry->addr_len = (uint16_t)header->msg_namelen;
        } else {
            io_uring_prep_sendmsg(entry, descriptor, header, MSG_DONTWAIT);
        }
        entry->flags |= IOSQE_CQE_SKIP_SUCCESS;
        io_uring_sqe_set_data64(entry, tag + i);
    }
    while (io_uring_sq_ready(&ring->ring) > 0) {
        int result = io_uring_submit(&ring->ring);
        if (result < 0 && result != -EINTR) return result;
    }
    return 0;
}

int curing_wait(curing *ring, int64_t nanoseconds) {
    int result;
    if (nanoseconds < 0) {
        result = io_uring_submit_and_wait(&ring->ring, 1);
    } else if (nanoseconds == 0) {
        result = io_uring_submit_and_get_events(&ring->ring);
    } else {
        struct __kernel_timespec timeout = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
        struct io_uring_cqe *completion = NULL;
        result = io_uring_submit_and_wait_timeout(&ring->ring, &completion, 1, &timeout, NULL);
    }
    return result == -ETIME || result == -EINTR || result > 0 ? 0 : result;
}

unsigned curing_take(curing *ring, struct curing_completion *completions, unsigned capacity) {
    struct io_uring_cqe *batch[64];
    unsigned taken = 0;
    while (taken < capacity) {
        unsigned wanted = capacity - taken < 64 ? capacity - taken : 64;
        unsigned count = io_uring_peek_batch_cqe(&ring->ring, batch, wanted);
        for (unsigned i = 0; i < count; i++) {
            uint32_t flags = 0;
            if (batch[i]->flags & IORING_CQE_F_BUFFER) {
                flags |= CURING_HAS_SLOT | (batch[i]->flags >> IORING_CQE_BUFFER_SHIFT) << CURING_SLOT_SHIFT;
            }
            if (batch[i]->flags & IORING_CQE_F_MORE) flags |= CURING_WILL_REPEAT;
            completions[taken + i] =
                (struct curing_completion){.tag = batch[i]->user_data, .result = batch[i]->res, .flags = flags};
        }
        io_uring_cq_advance(&ring->ring, count);
        taken += count;
        if (count < wanted) break;
    }
    return taken;
}
