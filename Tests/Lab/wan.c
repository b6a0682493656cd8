// The world between the lab's regions, for a kernel without netem: a router in user space. Every network namespace has one TUN device, this
// program holds the other ends, and a packet comes out where its destination lives, later by the way's delay.
//
//   wan SITE[,SITE…]@NAMESPACE …      for instance: wan 7@/run/netns/fra 10,11@/proc/self/ns/net
//
// Site S owns 10.77.S.0/24. The device is called wan0; who starts the program gives it addresses. Then it reads commands:
//
//   path A B DELAY [JITTER [LOSS]]    both ways between two sites: milliseconds one way, milliseconds at most added to some packets, percent
//   down S, up S                      a site's cable
//   stats                             prints what has passed; late is how much later than due packets left, a busy machine's share of all delays
//
// Packets of one way keep their order, as on most of the internet. It ends when its standard input does.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { sites = 256, devices = 32, mtu = 1500, heap_size = 1 << 16, burst = 64 };

struct path {
    int64_t delay, jitter, last_due;  // nanoseconds
    double loss;                      // 0 to 1
};

struct packet {
    int64_t due;
    uint64_t number;  // what came first leaves first
    uint16_t length;
    uint8_t device;
    uint8_t bytes[];
};

static struct path paths[sites][sites];
static uint8_t is_down[sites];
static int8_t device_of[sites];
static int device_count, device[devices];
static struct packet *heap[heap_size + 1];  // from 1 on, the next to leave on top
static unsigned waiting;
static uint64_t arrived, passed, lost, unknown, overflow, refused, late_milliseconds[4];  // below 1, 5, 20, and more
static int64_t late_most;

static void fail(const char *what) {
    fprintf(stderr, "wan: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static double chance(void) {
    static uint64_t state = UINT64_C(0x9E3779B97F4A7C15);
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) * 0x1p-53;
}

static int is_before(const struct packet *a, const struct packet *b) { return a->due != b->due ? a->due < b->due : a->number < b->number; }

static void push(struct packet *packet) {
    unsigned at = ++waiting;
    for (; at > 1 && is_before(packet, heap[at / 2]); at /= 2) heap[at] = heap[at / 2];
    heap[at] = packet;
}

static struct packet *pop(void) {
    struct packet *top = heap[1], *last = heap[waiting--];
    unsigned at = 1;
    while (2 * at <= waiting) {
        unsigned child = 2 * at;
        if (child < waiting && is_before(heap[child + 1], heap[child])) child++;
        if (!is_before(heap[child], last)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return top;
}

static int open_device(const char *namespace, int home) {
    int there = open(namespace, O_RDONLY | O_CLOEXEC);
    if (there < 0 || setns(there, CLONE_NEWNET)) fail(namespace);
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (tun < 0) fail("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI, .ifr_name = "wan0"};
    if (ioctl(tun, TUNSETIFF, &request)) fail("TUNSETIFF");
    close(there);
    if (setns(home, CLONE_NEWNET)) fail("the way back");
    return tun;
}

static void accept_packet(const uint8_t *bytes, size_t length, int64_t at) {
    arrived++;
    // IPv4 of the lab's own; a kernel also sends router solicitations, which lead nowhere.
    if (length < 20 || bytes[0] >> 4 != 4 || bytes[12] != 10 || bytes[13] != 77 || bytes[16] != 10 || bytes[17] != 77
        || device_of[bytes[18]] < 0) {
        unknown++;
        return;
    }
    unsigned from = bytes[14], to = bytes[18];
    struct path *path = &paths[from][to];
    if (is_down[from] || is_down[to] || (path->loss > 0 && chance() < path->loss)) {
        lost++;
        return;
    }
    struct packet *packet = waiting < heap_size ? malloc(sizeof *packet + length) : NULL;
    if (!packet) {
        overflow++;
        return;
    }
    packet->due = at + path->delay + (path->jitter > 0 ? (int64_t)(chance() * path->jitter) : 0);
    if (packet->due < path->last_due) packet->due = path->last_due;
    path->last_due = packet->due;
    packet->number = arrived;
    packet->length = length;
    packet->device = device_of[to];
    memcpy(packet->bytes, bytes, length);
    push(packet);
}

static void deliver(int64_t at) {
    while (waiting && heap[1]->due <= at) {
        struct packet *packet = pop();
        int64_t late = at - packet->due;
        late_milliseconds[late < 1000000 ? 0 : late < 5000000 ? 1 : late < 20000000 ? 2 : 3]++;
        if (late > late_most) late_most = late;
        if (write(device[packet->device], packet->bytes, packet->length) == packet->length) passed++;
        else refused++;
        free(packet);
    }
}

static void obey(char *line) {
    unsigned a, b;
    double delay, jitter = 0, loss = 0;
    int count = sscanf(line, "path %u %u %lf %lf %lf", &a, &b, &delay, &jitter, &loss);
    if (count >= 3 && a < sites && b < sites && delay >= 0 && jitter >= 0 && loss >= 0 && loss <= 100) {
        // Nothing waits for a packet of the longer way that is still under way.
        struct path path = {.delay = delay * 1e6, .jitter = jitter * 1e6, .loss = loss / 100};
        paths[a][b] = paths[b][a] = path;
    } else if (sscanf(line, "down %u", &a) == 1 && a < sites) {
        is_down[a] = 1;
    } else if (sscanf(line, "up %u", &a) == 1 && a < sites) {
        is_down[a] = 0;
    } else if (!strcmp(line, "stats")) {
        printf("stats arrived %llu passed %llu lost %llu unknown %llu overflow %llu refused %llu waiting %u"
               " late-below-1ms %llu late-below-5ms %llu late-below-20ms %llu late-more %llu late-most-us %lld\n",
               (unsigned long long)arrived, (unsigned long long)passed, (unsigned long long)lost, (unsigned long long)unknown,
               (unsigned long long)overflow, (unsigned long long)refused, waiting, (unsigned long long)late_milliseconds[0],
               (unsigned long long)late_milliseconds[1], (unsigned long long)late_milliseconds[2], (unsigned long long)late_milliseconds[3],
               (long long)(late_most / 1000));
        late_most = 0;
        memset(late_milliseconds, 0, sizeof late_milliseconds);
        return;
    } else {
        printf("wan: not understood: %s\n", line);
        return;
    }
    puts("ok");
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    memset(device_of, -1, sizeof device_of);
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (home < 0) fail("/proc/self/ns/net");
    for (int i = 1; i < argc; i++) {
        char *namespace = strchr(argv[i], '@');
        if (!namespace || device_count == devices) {
            fprintf(stderr, "usage: wan SITE[,SITE…]@NAMESPACE …\n");
            return 64;
        }
        *namespace++ = 0;
        device[device_count] = open_device(namespace, home);
        for (char *site = strtok(argv[i], ","); site; site = strtok(NULL, ",")) device_of[atoi(site) & 255] = device_count;
        device_count++;
    }
    puts("ready");

    struct pollfd polls[devices + 1];
    for (int i = 0; i < device_count; i++) polls[i] = (struct pollfd){device[i], POLLIN, 0};
    polls[device_count] = (struct pollfd){0, POLLIN, 0};
    char commands[4096];
    size_t kept = 0;
    for (;;) {
        int64_t at = now(), wait = waiting ? heap[1]->due - at : 0;
        struct timespec pause = {0};
        if (wait > 0) pause = (struct timespec){wait / 1000000000, wait % 1000000000};
        if (ppoll(polls, device_count + 1, waiting ? &pause : NULL, NULL) < 0 && errno != EINTR) fail("poll");
        at = now();
        deliver(at);
        for (int i = 0; i < device_count; i++) {
            if (!(polls[i].revents & POLLIN)) continue;
            uint8_t bytes[mtu + 64];
            ssize_t length;
            for (int n = 0; n < burst && (length = read(device[i], bytes, sizeof bytes)) > 0; n++) accept_packet(bytes, length, at);
        }
        if (polls[device_count].revents) {
            ssize_t length = read(0, commands + kept, sizeof commands - 1 - kept);
            if (length <= 0) return 0;
            kept += length;
            commands[kept] = 0;
            char *start = commands, *end;
            for (; (end = strchr(start, '\n')); start = end + 1) {
                *end = 0;
                obey(start);
            }
            kept = strlen(start);
            memmove(commands, start, kept + 1);
            if (kept == sizeof commands - 1) kept = 0;
        }
    }
}
