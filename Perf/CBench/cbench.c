#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cbench.h"
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BATCH 64
#define SLOT 2048

struct cbench_bare {
    int in, out;
    int count, next;
    struct sockaddr_in *destinations;
    struct sockaddr_in sources[BATCH];
    struct iovec vectors[BATCH];
    struct mmsghdr received[BATCH];
    struct mmsghdr outgoing[BATCH];
    char memory[BATCH][SLOT];
};

struct cbench_bare *cbench_bare_make(int in, int out, int destinations) {
    struct cbench_bare *b = calloc(1, sizeof *b);
    if (b == NULL) return NULL;
    b->destinations = calloc((size_t)destinations, sizeof *b->destinations);
    if (b->destinations == NULL) {
        free(b);
        return NULL;
    }
    b->in = in;
    b->out = out;
    b->count = destinations;
    return b;
}

void cbench_bare_aim(struct cbench_bare *b, int index, unsigned address, unsigned short port) {
    b->destinations[index].sin_family = AF_INET;
    b->destinations[index].sin_addr.s_addr = htonl(address);
    b->destinations[index].sin_port = htons(port);
}

static struct sockaddr_in *next_destination(struct cbench_bare *b) {
    struct sockaddr_in *destination = &b->destinations[b->next];
    if (++b->next == b->count) b->next = 0;
    return destination;
}

int cbench_bare_turn(struct cbench_bare *b) {
    for (int i = 0; i < BATCH; i++) {
        b->vectors[i] = (struct iovec){b->memory[i], SLOT};
        b->received[i].msg_hdr = (struct msghdr){
            .msg_name = &b->sources[i], .msg_namelen = sizeof b->sources[i], .msg_iov = &b->vectors[i], .msg_iovlen = 1};
    }
    int count = recvmmsg(b->in, b->received, BATCH, MSG_DONTWAIT, NULL);
    if (count <= 0) return 0;
    for (int i = 0; i < count; i++) {
        b->vectors[i].iov_len = b->received[i].msg_len;
        b->outgoing[i].msg_hdr = (struct msghdr){
            .msg_name = next_destination(b), .msg_namelen = sizeof *b->destinations, .msg_iov = &b->vectors[i], .msg_iovlen = 1};
    }
    for (int sent = 0; sent < count;) {
        int n = sendmmsg(b->out, b->outgoing + sent, (unsigned)(count - sent), 0);
        if (n <= 0) break;
        sent += n;
    }
    return count;
}

int cbench_plain_turn(struct cbench_bare *b) {
    int count = 0;
    while (count < BATCH) {
        socklen_t length = sizeof b->sources[0];
        ssize_t n = recvfrom(b->in, b->memory[0], SLOT, MSG_DONTWAIT, (struct sockaddr *)&b->sources[0], &length);
        if (n <= 0) break;
        struct sockaddr_in *destination = next_destination(b);
        sendto(b->out, b->memory[0], (size_t)n, 0, (struct sockaddr *)destination, sizeof *destination);
        count++;
    }
    return count;
}

void cbench_bare_free(struct cbench_bare *b) {
    free(b->destinations);
    free(b);
}
