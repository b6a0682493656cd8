// SDP: reads a client's offer, decides what this server does with it, and writes the answer (RFC 8866, 3264, 8829, 8839, 8843).
//
// One call is one transport: at most one Opus section and one data channel section, bundled. Everything else in an offer is
// refused by the book, at its place, with port 0, so that the client's own m-lines still match. The way through the room:
//
//     let offer = try SDPOffer(parsing: body)              // limits first, then grammar: Limits, Lines, Offer
//     let negotiation = try negotiate(offer, settings)     // which sections, which role, whose keys: Negotiation
//     respond(201, negotiation.answer)                     // Answer
//
// `TrickleFragment` reads and writes the bodies of WHIP's PATCH. This is set-up work, once a call: strings and arrays are fine
// here. What a client can reach is bounded before it is read, and only checked tokens of an offer ever come back in an answer.
