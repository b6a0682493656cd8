// An opaque, batch-shaped ring over liburing. liburing's own headers never reach Swift.
#ifndef CURING_H
#define CURING_H
#endif
