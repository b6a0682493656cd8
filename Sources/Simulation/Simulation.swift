// Simulation: whole calls in virtual time. The very cores that the programs run; only sockets, clocks and threads are not there. One seed
// decides everything that happens, so a run that breaks a promise comes back by its number.
//
//     CallPlan          the seed, the links, and the scenario: what befalls the call
//     CallSimulation    the world: clients, network, relay, worker and desk, moved from deadline to deadline
//       VirtualNetwork  datagrams in flight: delay, loss, bursts, duplicates, overtaking
//       SimulatedClient a WebRTC client with a voice that counts
//     CallReport        what became of it
//     Invariants        the promises; each is a function of a report, and says what was broken
//
// And a larger one, where everything goes wrong at once:
//
//     FaultPlan         the seed, the mode (safety, liveness), and which faults befall whom when
//     FaultSimulation   the world: people with calls, two relays behind one address, two transceivers, attackers
//       ClientModel     how Chromium and Firefox time their checks, and when they give up
//       FaultHappenings phases of a run, faults and their ends, and what pages do about them
//       FaultPromises   what must hold at every datagram and at the end, and who must hear again when
//
// And the largest, where thousands of calls go through many regions; its transceivers and clients are light, its relays are real:
//
//     RegionPlan       sizes and faults
//     RegionSimulation the world: relays of all clusters, the trunk between them, files that change
//       RegionWorld       clients and owners
//       RegionHappenings  what they do, and what befalls them
//       RegionPromises    what must hold at every datagram, and at the end
//     SeededEntropy     OpenSSL's randomness from the seed, so that a run comes back byte for byte
//
// For benches, without faults: LoadCaller, a client of which a thousand run in one thread, and SessionRig, a media worker's core with such
// callers around it.
