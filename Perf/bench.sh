#!/bin/sh
# What one packet costs the relay on its most travelled path. Prints; writes nothing. See Perf/README.md.
set -eu
cd "$(dirname "$0")/.."
program=.build/release/swiftlet
packets="${PACKETS:-1000000}"

if [ "${ONLY:-}" != instructions ]; then
    # One transceiver takes the whole burst in one train; eight take eight.
    "$program" bench relay --packets "$packets" --flows 256
    "$program" bench relay --packets "$packets" --flows 256 --transceivers 8

    # Whole programs on processors of their own; Perf/relay-figures.sh is the long form.
    "$program" bench load --against relay,relay-uring,bare,plain,nginx,coturn --rounds 3 --milliseconds 300 --flows 1000 --pattern burst:32
    "$program" bench load --against relay,relay-uring,bare,plain,nginx,coturn --rounds 3 --milliseconds 300 --flows 400 --pattern even
    "$program" bench bad --rounds 3 --milliseconds 300
fi

command -v valgrind >/dev/null || { echo "valgrind is missing: no instruction counts"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# This valgrind cannot read the debug information of Swift's compiler; names it finds without.
objcopy --strip-debug "$program" "$work/swiftlet"
program="$work/swiftlet"

# Two run lengths: what both share is start-up, the difference is packets.
short=6400
long=70400
instructions() {
    valgrind --tool=callgrind --callgrind-out-file="$work/callgrind.$1.$2" "$program" bench core --packets "$2" --flows 256 --direction "$1" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
heap() {
    valgrind --leak-check=no "$program" bench "$@" 2>&1 | sed -n 's/.*total heap usage: \([0-9,]*\) allocs.*/\1/p' | tr -d ,
}
echo "relay core alone, 256 known flows of 1 transceiver, 160 B, batches of 64, valgrind:"
for direction in up down hop; do
    first=$(instructions $direction $short)
    second=$(instructions $direction $long)
    echo "  instructions per packet, $direction  $(((second - first) / (long - short)))"
    first=$(heap core --packets $short --direction $direction)
    second=$(heap core --packets $long --direction $direction)
    echo "  allocations, $direction  $((second - first)) in $((long - short)) packets"
done
# The same with sockets. What the bench allocates to make up frames for the way down is not the relay's, so that only the way up is here.
first=$(heap relay --packets $short --flows 64 --direction up)
second=$(heap relay --packets $long --flows 64 --direction up)
echo "  allocations, up, with the sockets and both bare loops  $((second - first)) in $((long - short)) packets"
for direction in up down hop; do
    echo "  where the instructions go, $direction:"
    callgrind_annotate --threshold=95 "$work/callgrind.$direction.$long" 2>/dev/null | grep -E '^ *[0-9,]+ \(' | head -n 10 | cut -c1-150
done
