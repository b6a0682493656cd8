// Membership: who the transceivers are, and where their signaling listens. Any of them may be asked about any call; the call's id seals its
// owner's cluster and number, and this room says where that is.
//
//     Member.swift        one transceiver as one line of text, and a file of such lines
//     MemberBook.swift    what is known now: the newest reading, and those of before that may still run calls
//     Registry.swift      members that write themselves into Redis, and read each other there; no I/O
//     MemberRecordCodec.swift  a member as a value in Redis, with a MAC
//
// Nothing here ends a call. A reading that fails leaves the one before; a member that is in no reading any more is remembered, because its
// calls may be alive although its registration is not.

import Primitives
