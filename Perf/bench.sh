#!/bin/sh
# What one packet costs the relay on its most travelled path. Prints; writes nothing. See Perf/README.md.
set -eu
cd "$(dirname "$0")/.."
program=.build/release/swiftlet
packets="${PACKETS:-1000000}"

for flows in 64 256; do
    "$program" bench relay --packets "$packets" --flows "$flows"
done

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
    valgrind --tool=callgrind --callgrind-out-file="$work/callgrind.$1" "$program" bench core --packets "$1" --flows 256 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
allocations() {
    valgrind --leak-check=no "$program" bench core --packets "$1" --flows 256 2>&1 |
        sed -n 's/.*total heap usage: \([0-9,]*\) allocs.*/\1/p' | tr -d ,
}
i1=$(instructions $short)
i2=$(instructions $long)
a1=$(allocations $short)
a2=$(allocations $long)
echo "relay core alone, 256 known flows, 160 B, batches of 64, valgrind:"
echo "  instructions per packet  $(((i2 - i1) / (long - short)))"
echo "  allocations per packet   $((a2 - a1)) in $((long - short)) packets"
echo "  where the instructions go:"
callgrind_annotate --threshold=95 "$work/callgrind.$long" 2>/dev/null | grep -E '^ *[0-9,]+ \(' | head -n 12 | cut -c1-150
