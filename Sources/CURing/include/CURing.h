// An opaque, batch-shaped ring over liburing. liburing's own headers never reach Swift: they define _GNU_SOURCE, and libc's types
// would then clash with those of the Glibc module.
//
// A ring belongs to the thread that first enters it (DEFER_TASKRUN, SINGLE_ISSUER): completions appear only when that thread
// asks for them, so the kernel never interrupts a turn. Results are 0 or more, or a negative errno.
#ifndef CURING_H
#define CURING_H

#include <stddef.h>
#include <stdint.h>

typedef struct curing curing;

struct curing_completion {
    uint64_t tag;
    int32_t result;
    uint32_t flags;
};

// Flags of a completion.
#define CURING_HAS_SLOT (1u << 0)   // the upper 16 bits name the slot that was filled
#define CURING_WILL_REPEAT (1u << 1)  // the request stays armed
#define CURING_SLOT_SHIFT 16

// What a multishot receive puts before each payload, in front of the name and the control messages.
struct curing_receive_header {
    uint32_t name_length;
    uint32_t control_length;
    uint32_t payload_length;
    uint32_t flags;
};

// A ring, not yet owned by any thread; NULL and a negative errno when the kernel lacks what is needed or forbids it.
curing *curing_create(unsigned submissions, unsigned completions, unsigned name_length, unsigned control_length, int *error);
// Makes the calling thread the owner.
int curing_enable(curing *ring);
// Cancels everything and waits for it. Negative when that failed: the kernel may then still write into provided slots.
int curing_destroy(curing *ring);

// A group of slots to receive into: slot i is `length` bytes at base + i * stride. `group` is below 64.
int curing_add_group(curing *ring, unsigned group, unsigned slots, void *base, size_t stride, size_t length);
void curing_remove_group(curing *ring, unsigned group);
// Gives slots to the kernel.
void curing_provide(curing *ring, unsigned group, const uint16_t *slots, unsigned count);

// Queues a receive that repeats until an error, an empty group or a cancel ends it.
int curing_receive(curing *ring, int descriptor, unsigned group, uint64_t tag);
// Queues one wait for readability.
int curing_poll(curing *ring, int descriptor, uint64_t tag);
// Cancels the request `tag` and waits until it has ended.
int curing_cancel(curing *ring, uint64_t tag);

// Sends `count` messages, `struct msghdr`s that lie `stride` bytes apart, and returns when the kernel has taken or refused each.
// Only refusals complete, with tag `tag + index`. At most as many as the ring has submissions.
int curing_send(curing *ring, int descriptor, void *headers, size_t stride, unsigned count, uint64_t tag);

// Submits what is queued and waits for a completion: for ever (negative), not at all (0), or up to this many nanoseconds.
int curing_wait(curing *ring, int64_t nanoseconds);
// Moves up to `capacity` completions out of the ring. Runs deferred work first if there is some.
unsigned curing_take(curing *ring, struct curing_completion *completions, unsigned capacity);

#endif
