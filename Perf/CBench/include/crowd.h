// Many clients on one socket: each is a source address of its own inside 127.0.0.0/8. What a load generator needs and a server does not.
#ifndef CROWD_H
#define CROWD_H

#include <stdint.h>

struct crowd;

// A socket at some port of every address; its clients are first, first + 1 and so on (host byte order). NULL with errno set when that fails.
struct crowd *crowd_make(uint32_t first, int buffer_bytes);
void crowd_free(struct crowd *crowd);
uint16_t crowd_port(const struct crowd *crowd);
// Where packets go to from now on.
void crowd_aim(struct crowd *crowd, uint32_t address, uint16_t port);

// Memory for `size` bytes that client `client` will send; NULL when a batch is full, which is the time to flush. `segment` is 0 or the length
// of each of the datagrams that the bytes are to be cut into.
uint8_t *crowd_next(struct crowd *crowd, uint32_t client, unsigned size, unsigned segment);
// Sends what has gathered; how many messages the kernel took.
int crowd_flush(struct crowd *crowd);

// Takes up to 64 datagrams, never waits; how many.
int crowd_receive(struct crowd *crowd);
// One of them, valid until the next receive.
const uint8_t *crowd_bytes(const struct crowd *crowd, int index);
unsigned crowd_length(const struct crowd *crowd, int index);
// To which client it was sent.
uint32_t crowd_client(const struct crowd *crowd, int index);
// What the kernel has dropped because the socket's buffer was full.
uint32_t crowd_overflow(const struct crowd *crowd);

// CPU time of another process with all its threads, in nanoseconds; negative when there is none.
int64_t crowd_process_time(int process);
// Binds this process, and what it starts, to a processor; false when it may not.
int crowd_pin(int processor);
// Asks for the highest ordinary priority, or to be asked before everybody else, for this process and what it starts: other work on the machine disturbs less. False when it may not.
int crowd_hurry(int realtime);
// Sleeps until that time of the monotonic clock, in nanoseconds.
void crowd_sleep_until(uint64_t nanoseconds);
// The number of processors this process may run on.
int crowd_processors(void);

// The yardsticks: never return. They print where they listen, forward what comes to their public socket to `peer`, and bring its answers to the
// client whose number is in bytes 4 to 7 of the packet.
enum yardstick_kind { yardstick_bare, yardstick_plain };
int yardstick_run(enum yardstick_kind kind, uint32_t peer_address, uint16_t peer_port);

#endif
