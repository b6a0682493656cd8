#!/bin/sh
# What 20 ms of audio cost beside libopus alone: processor time in turns, then instructions by callgrind (QUICK=1: without).
set -eu
cd "$(dirname "$0")/.."
swift build -c release --product audio-bench >/dev/null
program=.build/release/audio-bench
"$program" cpu --seconds "${SECONDS_EACH:-60}"
[ -z "${QUICK:-}" ] || exit 0
command -v valgrind >/dev/null || { echo "valgrind is missing: no instruction counts"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# This valgrind cannot read the debug information of Swift's compiler.
objcopy --strip-debug "$program" "$work/audio-bench"
instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$work/audio-bench" spin "$1" --seconds "$2" 2>&1 | sed -n 's/.*Collected : //p'
}
# Two run lengths: what both share is start-up, the difference is 500 frames.
for contestant in decode pipe voice transcode both red; do
    echo "$contestant: $((($(instructions $contestant 15) - $(instructions $contestant 5)) / 500)) instructions per 20 ms"
done
