#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "crowd.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define SEND_SLOT 65536
#define RECEIVE_SLOT 2048
#define CONTROL 128

struct crowd {
    int socket;
    uint32_t first;
    uint16_t port;
    struct sockaddr_in target;
    int waiting, received;
    uint32_t overflow;
    struct iovec out_vectors[BATCH], in_vectors[BATCH];
    struct mmsghdr out[BATCH], in[BATCH];
    struct sockaddr_in sources[BATCH];
    uint32_t clients[BATCH];
    _Alignas(8) char out_control[BATCH][CONTROL];
    _Alignas(8) char in_control[BATCH][CONTROL];
    uint8_t in_memory[BATCH][RECEIVE_SLOT];
    uint8_t out_memory[BATCH][SEND_SLOT];
};

struct crowd *crowd_make(uint32_t first, int buffer_bytes) {
    struct crowd *c = calloc(1, sizeof *c);
    if (c == NULL) return NULL;
    c->first = first;
    c->socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    struct sockaddr_in any = {.sin_family = AF_INET};
    socklen_t length = sizeof any;
    if (c->socket < 0 || setsockopt(c->socket, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) != 0 ||
        setsockopt(c->socket, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof on) != 0 ||
        bind(c->socket, (struct sockaddr *)&any, sizeof any) != 0 || getsockname(c->socket, (struct sockaddr *)&any, &length) != 0) {
        if (c->socket >= 0) close(c->socket);
        free(c);
        return NULL;
    }
    setsockopt(c->socket, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
    setsockopt(c->socket, SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof buffer_bytes);
    c->port = ntohs(any.sin_port);
    return c;
}

void crowd_free(struct crowd *c) {
    close(c->socket);
    free(c);
}

uint16_t crowd_port(const struct crowd *c) { return c->port; }

void crowd_aim(struct crowd *c, uint32_t address, uint16_t port) {
    c->target = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address)};
}

uint8_t *crowd_next(struct crowd *c, uint32_t client, unsigned size, unsigned segment) {
    if (c->waiting == BATCH || size > SEND_SLOT) return NULL;
    int i = c->waiting++;
    c->out_vectors[i] = (struct iovec){c->out_memory[i], size};
    struct msghdr *header = &c->out[i].msg_hdr;
    *header = (struct msghdr){
        .msg_name = &c->target, .msg_namelen = sizeof c->target, .msg_iov = &c->out_vectors[i], .msg_iovlen = 1,
        .msg_control = c->out_control[i], .msg_controllen = CONTROL};
    struct cmsghdr *control = CMSG_FIRSTHDR(header);
    control->cmsg_level = IPPROTO_IP;
    control->cmsg_type = IP_PKTINFO;
    control->cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo));
    struct in_pktinfo info = {.ipi_spec_dst.s_addr = htonl(c->first + client)};
    memcpy(CMSG_DATA(control), &info, sizeof info);
    size_t used = CMSG_SPACE(sizeof info);
    if (segment != 0) {
        control = (struct cmsghdr *)(c->out_control[i] + used);
        control->cmsg_level = SOL_UDP;
        control->cmsg_type = UDP_SEGMENT;
        control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
        uint16_t length = (uint16_t)segment;
        memcpy(CMSG_DATA(control), &length, sizeof length);
        used += CMSG_SPACE(sizeof length);
    }
    header->msg_controllen = used;
    return c->out_memory[i];
}

int crowd_flush(struct crowd *c) {
    int sent = 0;
    while (sent < c->waiting) {
        int n = sendmmsg(c->socket, c->out + sent, (unsigned)(c->waiting - sent), 0);
        // ICMP messages for what was sent earlier come this way; the datagram itself has not been sent yet.
        if (n < 0 && (errno == ECONNREFUSED || errno == EINTR)) continue;
        if (n <= 0) break;
        sent += n;
    }
    c->waiting = 0;
    return sent;
}

int crowd_receive(struct crowd *c) {
    for (int i = 0; i < BATCH; i++) {
        c->in_vectors[i] = (struct iovec){c->in_memory[i], RECEIVE_SLOT};
        c->in[i].msg_hdr = (struct msghdr){
            .msg_name = &c->sources[i], .msg_namelen = sizeof c->sources[i], .msg_iov = &c->in_vectors[i], .msg_iovlen = 1,
            .msg_control = c->in_control[i], .msg_controllen = CONTROL};
    }
    int count = recvmmsg(c->socket, c->in, BATCH, MSG_DONTWAIT, NULL);
    c->received = count > 0 ? count : 0;
    for (int i = 0; i < c->received; i++) {
        c->clients[i] = UINT32_MAX;
        struct msghdr *header = &c->in[i].msg_hdr;
        for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control != NULL; control = CMSG_NXTHDR(header, control)) {
            if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
                struct in_pktinfo info;
                memcpy(&info, CMSG_DATA(control), sizeof info);
                c->clients[i] = ntohl(info.ipi_addr.s_addr) - c->first;
            } else if (control->cmsg_level == SOL_SOCKET && control->cmsg_type == SO_RXQ_OVFL) {
                memcpy(&c->overflow, CMSG_DATA(control), sizeof c->overflow);
            }
        }
    }
    return c->received;
}

const uint8_t *crowd_bytes(const struct crowd *c, int index) { return c->in_memory[index]; }
unsigned crowd_length(const struct crowd *c, int index) { return c->in[index].msg_len; }
uint32_t crowd_client(const struct crowd *c, int index) { return c->clients[index]; }
uint32_t crowd_overflow(const struct crowd *c) { return c->overflow; }

int64_t crowd_process_time(int process) {
    clockid_t clock;
    struct timespec time;
    if (clock_getcpuclockid(process, &clock) != 0 || clock_gettime(clock, &time) != 0) return -1;
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int crowd_pin(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (processor >= 0) {
        CPU_SET(processor, &set);
    } else {
        for (int i = 0; i < sysconf(_SC_NPROCESSORS_ONLN); i++) CPU_SET(i, &set);
    }
    return sched_setaffinity(0, sizeof set, &set) == 0;
}

int crowd_hurry(int realtime) {
    struct sched_param parameter = {.sched_priority = 1};
    if (realtime) return sched_setscheduler(0, SCHED_FIFO, &parameter) == 0;
    // Where the kernel shares time among sessions, priorities only count inside one; a session of our own may be put first as a whole.
    if (getsid(0) == getpid()) {
        int group = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
        if (group >= 0) {
            (void)!write(group, "-20", 3);
            close(group);
        }
    }
    return setpriority(PRIO_PROCESS, 0, -20) == 0;
}

void crowd_sleep_until(uint64_t nanoseconds) {
    struct timespec time = {.tv_sec = (time_t)(nanoseconds / 1000000000), .tv_nsec = (long)(nanoseconds % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR) {}
}

int crowd_processors(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}
