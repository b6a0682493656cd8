// What a relay costs that knows nothing: the kernel's price for moving datagrams between two sockets, in batches and one by one.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "crowd.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <signal.h>
#include <sys/socket.h>

#define BATCH 64
#define SLOT 2048
#define CLIENTS (1 << 18)

static struct sockaddr_in clients[CLIENTS];
static struct sockaddr_in peer;
static struct sockaddr_in sources[BATCH];
static struct iovec vectors[BATCH];
static struct mmsghdr received[BATCH], outgoing[BATCH];
static char memory[BATCH][SLOT];

// All the logic there is: who sent a packet up is where its answer goes.
static struct sockaddr_in *destination(int up, const char *bytes, ssize_t length, const struct sockaddr_in *source) {
    uint32_t client = 0;
    if (length >= 8) memcpy(&client, bytes + 4, sizeof client);
    client = ntohl(client) % CLIENTS;
    if (!up) return &clients[client];
    clients[client] = *source;
    return &peer;
}

static void batch_turn(int in, int out, int up) {
    for (int i = 0; i < BATCH; i++) {
        vectors[i].iov_base = memory[i];
        vectors[i].iov_len = SLOT;
        received[i].msg_hdr.msg_name = &sources[i];
        received[i].msg_hdr.msg_namelen = sizeof sources[i];
        received[i].msg_hdr.msg_iov = &vectors[i];
        received[i].msg_hdr.msg_iovlen = 1;
    }
    int count = recvmmsg(in, received, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++) {
        vectors[i].iov_len = received[i].msg_len;
        outgoing[i].msg_hdr.msg_name = destination(up, memory[i], received[i].msg_len, &sources[i]);
        outgoing[i].msg_hdr.msg_namelen = sizeof peer;
        outgoing[i].msg_hdr.msg_iov = &vectors[i];
        outgoing[i].msg_hdr.msg_iovlen = 1;
    }
    for (int sent = 0; sent < count;) {
        int n = sendmmsg(out, outgoing + sent, (unsigned)(count - sent), 0);
        sent += n > 0 ? n : 1;
    }
}

static void plain_turn(int in, int out, int up) {
    for (int i = 0; i < BATCH; i++) {
        socklen_t length = sizeof sources[0];
        ssize_t n = recvfrom(in, memory[0], SLOT, MSG_DONTWAIT, (struct sockaddr *)&sources[0], &length);
        if (n < 0) return;
        sendto(out, memory[0], (size_t)n, 0, (struct sockaddr *)destination(up, memory[0], n, &sources[0]), sizeof peer);
    }
}

static int open_socket(uint16_t *port) {
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1, buffer = 4 << 20;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    setsockopt(s, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    setsockopt(s, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    setsockopt(s, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    if (s < 0 || bind(s, (struct sockaddr *)&address, sizeof address) != 0 || getsockname(s, (struct sockaddr *)&address, &length) != 0) {
        perror("yardstick");
        exit(1);
    }
    *port = ntohs(address.sin_port);
    return s;
}

int yardstick_run(enum yardstick_kind kind, uint32_t peer_address, uint16_t peer_port) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    peer = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(peer_port), .sin_addr.s_addr = htonl(peer_address)};
    uint16_t ports[2];
    int sockets[2] = {open_socket(&ports[0]), open_socket(&ports[1])};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < 2; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, sockets[i], &event) != 0) return 1;
    }
    printf("yardstick ready: public 127.0.0.1:%u, trunk 127.0.0.1:%u\n", ports[0], ports[1]);
    fflush(stdout);
    for (;;) {
        struct epoll_event events[2];
        int count = epoll_wait(epoll, events, 2, -1);
        for (int i = 0; i < count; i++) {
            int side = (int)events[i].data.u32;
            (kind == yardstick_bare ? batch_turn : plain_turn)(sockets[side], sockets[1 - side], side == 0);
        }
    }
}
