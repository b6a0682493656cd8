// TransceiverCore: the WebRTC endpoint without its sockets.
//
//     TransceiverWorker   trunk frames in, trunk trains out; owns the sessions of one media thread and their timers
//       Session           one call: wires the machines below and keeps no protocol of its own
//         ICELiteAgent    (ICE)     which address is the client's
//         DTLSAssociation (DTLS)    who the client is, and the keys
//         MediaTransport            SRTP, RTP and RTCP of one audio section
//         CallBackend               what stands behind the call
//     SignalingDesk       HTTP requests in, HTTP responses out; owns the list of calls, on the control thread
//
// Desk and workers share nothing; they meet in the messages of SessionParameters.swift, which the program carries in mailboxes.
