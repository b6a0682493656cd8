#!/bin/sh
# Holds both cores against Perf/Budgets: instructions and allocations of a packet that the relay forwards or drops, and of one that the transceiver
# echoes, which are the same on every machine of one kind, unlike nanoseconds. Exits 1 when one is more than 5 % over its budget.
#   Perf/budgets.sh [RELAY-BUDGET [TRANSCEIVER-BUDGET]]
set -eu
cd "$(dirname "$0")/.."
budget="${1:-Perf/Budgets/relay-core.json}"
echoes="${2:-Perf/Budgets/transceiver-core.json}"
command -v valgrind >/dev/null || { echo "budgets: valgrind is missing: make deps-bench" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# This valgrind cannot read the debug information of Swift's compiler; names it finds without.
objcopy --strip-debug .build/release/swiftlet "$work/swiftlet"

value() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "${2:-$budget}"; }
flows=$(value flows)
# Two run lengths: what both share is start-up, the difference is packets.
short=1280
long=14080
# A run in which other things become of packets than its name says is none.
run() {
    valgrind --tool=callgrind --callgrind-out-file="$work/$1.$2" "$work/swiftlet" bench core --packets "$2" --flows "$flows" --direction "$1" \
        >"$work/said" 2>&1 || { cat "$work/said" >&2; exit 1; }
    done=$(sed -n 's/^core: \([0-9]*\) packets.*/\1/p' "$work/said")
    [ "${done:-0}" -ge "$2" ] || { echo "budgets: $1: of $2 packets ${done:-0}" >&2; exit 1; }
}
# The driver of the bench stands for the sockets: what is its own does not count.
instructions() {
    callgrind_annotate --threshold=100 "$work/$1.$2" | awk '
        /^ *[0-9,]+ \(/ {
            count = $1
            gsub(",", "", count)
            if ($0 ~ /PROGRAM TOTALS/) total = count
            else if ($0 ~ /s8swiftlet[0-9]+(Bench|CoreBench)/) own += count
        }
        END { printf "%d\n", total - own }'
}
# Calls of what gives memory; an object may count twice, none is none. A name is written out where it is first mentioned, and is a number from
# then on.
allocations() {
    awk '
        /^c?fn=/ {
            id = $1
            sub(/^c?fn=/, "", id)
            if (NF > 1) name[id] = $2
            if (/^cfn=/) called = name[id]
        }
        /^calls=/ && called ~ /^(malloc|calloc|realloc|posix_memalign|aligned_alloc|swift_slowAlloc|swift_allocObject)$/ {
            split($1, number, "=")
            count += number[2]
        }
        END { printf "%d\n", count }' "$work/$1.$2"
}
status=0
check() {
    allowed=$(($3 * 105 / 100))
    if [ "$2" -le "$allowed" ]; then mark=ok; else mark="TOO MUCH"; status=1; fi
    echo "budgets: $1: $2, budget $3: $mark"
}
# Forwarded, then dropped: a hint that is not ours, a known one with a wrong signature, and what is no check at all.
for direction in up down hop forged unsigned truncated huge media noise; do
    [ -n "$(value "instructions-$direction")" ] || { echo "budgets: $budget has no budget for $direction" >&2; exit 1; }
    run $direction $short
    run $direction $long
    check "instructions per packet, $direction" $((($(instructions $direction $long) - $(instructions $direction $short)) / (long - short))) \
        "$(value "instructions-$direction")"
    check "allocations in $((long - short)) packets, $direction" $(($(allocations $direction $long) - $(allocations $direction $short))) \
        "$(value "allocations-$direction")"
done

# The transceiver: calls are set up before anything is counted, and so are the packets that their callers say.
packets=3200
echoed() {
    valgrind --tool=callgrind --callgrind-out-file="$work/echo.$1" --collect-atstart=no '--toggle-collect=*SessionRigV7measure*' \
        "$work/swiftlet" bench session --packets $packets --calls "$(value calls "$echoes")" --batch "$1" >/dev/null 2>&1
    callgrind_annotate --threshold=100 "$work/echo.$1" | awk '
        /^ *[0-9,]+ \(/ {
            count = $1
            gsub(",", "", count)
            if ($0 ~ /PROGRAM TOTALS/) total = count
            else if ($0 ~ /s10Simulation10SessionRig/) own += count
        }
        END { printf "%d\n", total - own }'
}
for batch in 1 16; do
    check "instructions per packet there and back, $batch in a turn" $(($(echoed $batch) / packets)) "$(value "instructions-batch-$batch" "$echoes")"
done
# Memory is counted from the start on, so that the difference of two runs is the packets'.
memory() {
    valgrind --leak-check=no "$work/swiftlet" bench session --packets "$1" --prepared $packets --calls "$(value calls "$echoes")" 2>&1 |
        sed -n 's/.*total heap usage: \([0-9,]*\) allocs.*/\1/p' | tr -d ,
}
first=$(memory 160)
second=$(memory $packets)
check "allocations in $((packets - 160)) packets there and back" $((second - first)) "$(value allocations "$echoes")"
exit $status
