// What Swift cannot import from the C library and the kernel: mmsg and cmsg walks, CPU sets, perf events, BPF.
#ifndef CLINUX_H
#define CLINUX_H
#endif
