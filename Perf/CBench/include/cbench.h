// The yardstick of `swiftlet bench`: a loop that does nothing but move datagrams, as little code as recvmmsg and sendmmsg allow.
#ifndef CBENCH_H
#define CBENCH_H

#include "crowd.h"
#include <netinet/in.h>

struct cbench_bare;

// Moves what arrives at `in` through `out`, to each of its destinations in turn.
struct cbench_bare *cbench_bare_make(int in, int out, int destinations);
// Sets destination `index` (IPv4, host byte order).
void cbench_bare_aim(struct cbench_bare *bare, int index, unsigned address, unsigned short port);
// One batch: how many datagrams were moved, 0 when none waited.
int cbench_bare_turn(struct cbench_bare *bare);
// The same, one recvfrom and one sendto per datagram.
int cbench_plain_turn(struct cbench_bare *bare);
void cbench_bare_free(struct cbench_bare *bare);

#endif
