#!/bin/sh
# Holds what setting up a call costs the transceiver (signaling, ICE, DTLS, SRTP) against Perf/Budgets/call-setup.json: its instructions outside the
# kernel, counted by callgrind. Exits 1 when a figure is more than 10 % over its budget: these are real programs with real sockets, and how many
# datagrams one turn of a worker takes is not always the same.
#   Perf/setup-budget.sh [BUDGET]
#   FEW=16 MANY=56   numbers of calls; what both have in common is start-up, and sixteen calls before any is counted
set -eu
cd "$(dirname "$0")/.."
budget="${1:-Perf/Budgets/call-setup.json}"
few="${FEW:-16}"
many="${MANY:-56}"
command -v valgrind >/dev/null || { echo "setup-budget: valgrind is missing: make deps-bench" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# This valgrind cannot read the debug information of Swift's compiler.
objcopy --strip-debug .build/release/swiftlet-transceiver "$work/swiftlet-transceiver"
printf '#!/bin/sh\nexec valgrind --tool=callgrind --callgrind-out-file=/dev/null --log-file=%s %s "$@"\n' \
    "$work/log" "$work/swiftlet-transceiver" >"$work/run"
chmod +x "$work/run"
value() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$budget"; }
collected() {
    .build/release/swiftlet bench calls --calls "$1" --rate 20 --idle-seconds 0 --seconds 0 --slow yes --data-channel "$2" \
        --transceiver-program "$work/run" >/dev/null
    sed -n 's/.*Collected : //p' "$work/log"
}
status=0
check() {
    first=$(collected "$few" "$2")
    second=$(collected "$many" "$2")
    found=$(((second - first) / (many - few)))
    if [ "$found" -le $(($3 * 110 / 100)) ]; then mark=ok; else mark="TOO MUCH"; status=1; fi
    echo "budgets: instructions per call set up, $1: $found, budget $3: $mark"
}
check "audio alone" no "$(value instructions-audio)"
check "with a data channel" yes "$(value instructions-channel)"
exit $status
