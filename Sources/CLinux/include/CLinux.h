// What Swift cannot import from the C library and the kernel: headers outside the Glibc module, cmsg walks (macros), CPU
// sets (macros), variadic system calls. Everything is inline and small; decisions live in Swift.
#ifndef CLINUX_H
#define CLINUX_H

#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

// What one datagram's control messages said; zero where the kernel said nothing.
struct clinux_control {
    uint64_t timestamp_seconds;      // SO_TIMESTAMPNS: wall clock at reception
    uint32_t timestamp_nanoseconds;
    uint32_t dropped;                // SO_RXQ_OVFL: datagrams this socket has lost since it was made
    uint32_t segment_size;           // UDP_GRO: length of each datagram of a train but the last
};

// Room for the three control messages above, aligned: 24 (drops) + 24 (segment size) + 32 (timestamp).
#define CLINUX_RECEIVE_CONTROL_BYTES 80
// Room for one UDP_SEGMENT control message.
#define CLINUX_SEND_CONTROL_BYTES 24

static inline void clinux_parse_control(void *control, size_t length, struct clinux_control *out) {
    struct msghdr header = {.msg_control = control, .msg_controllen = length};
    memset(out, 0, sizeof *out);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c != NULL; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
            memcpy(&out->dropped, CMSG_DATA(c), sizeof out->dropped);
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            out->timestamp_seconds = (uint64_t)t.tv_sec;
            out->timestamp_nanoseconds = (uint32_t)t.tv_nsec;
        } else if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int size = 0;  // the kernel writes an int
            memcpy(&size, CMSG_DATA(c), sizeof size);
            out->segment_size = size > 0 ? (uint32_t)size : 0;
        }
    }
}

// Writes the UDP_SEGMENT control message into CLINUX_SEND_CONTROL_BYTES bytes.
static inline void clinux_write_segment_size(void *control, uint16_t size) {
    struct cmsghdr *c = (struct cmsghdr *)control;
    c->cmsg_level = SOL_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof size);
    memcpy(CMSG_DATA(c), &size, sizeof size);
}

// Sends `bytes` with `count` descriptors over a unix socket.
static inline ssize_t clinux_send_descriptors(int socket, const void *bytes, size_t length, const int *descriptors, int count) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int) * 253)];
    } control;
    struct iovec vector = {(void *)bytes, length};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    if (count < 0 || count > 253) {
        errno = EINVAL;
        return -1;
    }
    if (count > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
        memcpy(CMSG_DATA(c), descriptors, sizeof(int) * (size_t)count);
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL);
}

// Receives bytes and up to 253 descriptors (close-on-exec); `*count` says how many came.
static inline ssize_t clinux_receive_descriptors(int socket, void *bytes, size_t length, int *descriptors, int *count) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int) * 253)];
    } control;
    struct iovec vector = {bytes, length};
    struct msghdr message = {
        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    *count = 0;
    ssize_t received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (received < 0) return received;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        int n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < n && *count < 253; i++) memcpy(&descriptors[(*count)++], CMSG_DATA(c) + sizeof(int) * (size_t)i, sizeof(int));
    }
    return received;
}

// Takes one report off a socket's error queue (IP_RECVERR): 1 when a machine says that nobody listens there, 0 for any other report, -1 with
// EAGAIN when there is none. `name` becomes where the datagram had been sent.
static inline int clinux_next_error_report(int socket, struct sockaddr *name, socklen_t *length) {
    union {
        struct cmsghdr header;
        char bytes[512];
    } control;
    struct msghdr message = {
        .msg_name = name, .msg_namelen = *length, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    if (recvmsg(socket, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) return -1;
    *length = message.msg_namelen;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
        int is_report = (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) ||
                        (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR);
        if (!is_report || c->cmsg_len < CMSG_LEN(sizeof(struct sock_extended_err))) continue;
        struct sock_extended_err report;
        memcpy(&report, CMSG_DATA(c), sizeof report);
        int is_icmp = report.ee_origin == SO_EE_ORIGIN_ICMP || report.ee_origin == SO_EE_ORIGIN_ICMP6;
        return is_icmp && report.ee_errno == ECONNREFUSED;
    }
    return 0;
}

static inline int clinux_attach_reuseport_program(int socket, const uint16_t *codes, const uint8_t *jumps_true,
                                                  const uint8_t *jumps_false, const uint32_t *constants, int count) {
    struct sock_filter filter[128];
    if (count < 1 || count > 128) {
        errno = EINVAL;
        return -1;
    }
    for (int i = 0; i < count; i++) filter[i] = (struct sock_filter){codes[i], jumps_true[i], jumps_false[i], constants[i]};
    struct sock_fprog program = {(unsigned short)count, filter};
    return setsockopt(socket, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program);
}

// Pins the calling thread to one processor.
static inline int clinux_pin_thread(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (processor < 0 || processor >= CPU_SETSIZE) {
        errno = EINVAL;
        return -1;
    }
    CPU_SET(processor, &set);
    return sched_setaffinity(0, sizeof set, &set);
}

// How late a timer of the calling thread may fire; the default is 50 microseconds.
static inline int clinux_set_timer_slack(unsigned long nanoseconds) {
    return prctl(PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0);
}

// The `index`-th processor that this process may run on, or -1 when there are fewer.
static inline int clinux_allowed_processor(int index) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return -1;
    for (int processor = 0; processor < CPU_SETSIZE; processor++) {
        if (CPU_ISSET(processor, &set) && index-- == 0) return processor;
    }
    return -1;
}

static inline int clinux_open_read_only(const char *path) {
    return open(path, O_RDONLY | O_CLOEXEC);
}

static inline int clinux_open_privately(const char *path) {
    return open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
}

enum { clinux_add_seals = F_ADD_SEALS, clinux_seal_shrink = F_SEAL_SHRINK };

// The calling process gets `signal` when the thread that started it ends.
static inline int clinux_set_death_signal(int signal) {
    return prctl(PR_SET_PDEATHSIG, (unsigned long)signal, 0, 0, 0);
}

static inline int clinux_set_close_on_exec(int descriptor, int enabled) {
    return fcntl(descriptor, F_SETFD, enabled ? FD_CLOEXEC : 0);
}

static inline int clinux_perf_event_open(struct perf_event_attr *attributes, pid_t process, int processor, int group,
                                         unsigned long flags) {
    return (int)syscall(SYS_perf_event_open, attributes, process, processor, group, flags);
}

#endif
