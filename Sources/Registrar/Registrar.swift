// Registrar: a thread that keeps a `Registry` on a connection to Redis. Both programs have it: transceivers to write themselves and to find
// each other, relays to learn where transceivers are. It may wait for a name server or for Redis, for ever if need be; nobody waits for it.
//
//     RedisSocket.swift    the socket under a machine that speaks with Redis
//     RegistryThread.swift the thread
//     RegistryBoard.swift  what it tells others, and what others tell it
//     RegistryMetrics.swift what Prometheus reads
