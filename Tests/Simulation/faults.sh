#!/bin/sh
# People, relays, transceivers and faults in virtual time: faults.sh SWIFTLET SEEDS FIRST. Half of the seeds show safety and half liveness,
# each half in a process of its own. Whatever breaks a promise is told with the command that replays it; status 1.
set -eu
swiftlet=$1 seeds=$2 first=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One seed is one run: the same words to the last digit of the trace.
for mode in safety liveness; do
	"$swiftlet" simulate --mode $mode --seed "$first" --seeds 5 >"$work/first"
	"$swiftlet" simulate --mode $mode --seed "$first" --seeds 5 >"$work/second"
	cmp "$work/first" "$work/second" || { echo "the same seeds gave other runs" >&2; exit 1; }
done

"$swiftlet" simulate --mode safety --seed "$first" --seeds $((seeds / 2)) >"$work/safety" &
safety=$!
"$swiftlet" simulate --mode liveness --seed "$first" --seeds $((seeds / 2)) >"$work/liveness" &
liveness=$!
status=0
wait $safety || status=1
wait $liveness || status=1
# Each fault by itself.
"$swiftlet" simulate --mode both --scenario all --seed "$first" --seeds 10 >"$work/single" || status=1
cat "$work/safety" "$work/liveness"
test $status = 0 || cat "$work/single"
exit $status
