// Telemetry: numbers on their way from the thread that counts to the operator who reads.
//
// A worker counts in plain stores of its own and publishes them once a turn into its `CounterPage`; the control thread takes
// consistent snapshots, sums over workers and writes `PrometheusText`. `Histogram` is a copyable value that travels the same way.
// `PerfCounters` asks the kernel what a thread really used. No lock anywhere, and nothing here is done per packet.
