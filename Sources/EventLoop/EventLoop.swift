// EventLoop: the shell around the cores, and the only user of the kernel on the data path.
//
// A worker is one pinned thread (`WorkerThread`) that repeats one turn for ever:
//
//     engine.wait(until: deadline)              epoll_pwait2 or io_uring; nanoseconds, rounded up
//     let now = MonotonicClock.now()            the only clock read of the turn
//     while let event = engine.nextEvent() …    which socket, stream, mailbox or signal is ready
//     engine.receive(from: socket, into: &batch)  one system call, up to 64 datagrams
//     … the core decides …
//     engine.send(&outgoing, on: socket)        one system call, up to 64 datagrams, or one UDP_SEGMENT train
//
// `DatagramEngine` hides which kernel interface moves the datagrams: `ReadinessEngine` (epoll, recvmmsg, sendmmsg) works
// everywhere, `RingEngine` (io_uring) where the kernel and the container let it. Both fill the same `ReceiveBatch` and empty the
// same `SendBatch`, whose memory and message vectors are built once.
//
// Files: Syscall (every system call, errno, interrupts) · Descriptor, Clock, Thread, Mailbox (small owners) · DatagramSocket,
// Steering (sockets and which worker's socket the kernel picks) · ReceiveBatch, SendBatch, MessageVectors (datagram memory)
// · Reactor, StreamSocket, SignalSource (readiness) · DatagramEngine, ReadinessEngine, RingEngine (datagrams in and out).
