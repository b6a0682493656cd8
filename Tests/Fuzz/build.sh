#!/bin/sh
# Builds one libFuzzer program for all parsers, .build/fuzz/swiftlet-fuzz, and with FUZZ_SECONDS=N runs each for that long.
#   SWIFTLET_FUZZ_TARGET=stun .build/fuzz/release/swiftlet-fuzz Tests/Corpus/stun
set -eu
cd "$(dirname "$0")/../.."
SWIFTLET_FUZZ=1 swift build -c release --scratch-path .build/fuzz --product swiftlet-fuzz \
    -Xswiftc -sanitize=fuzzer -Xswiftc -parse-as-library
program=.build/fuzz/release/swiftlet-fuzz
[ -n "${FUZZ_SECONDS:-}" ] || { echo "built $program"; exit 0; }
for target in stun hint keyfile trunk rtp rtcp sdp http http-client websocket websocket-upgrade multipart json event opus jitter red sctp grpc http2 \
    ingresses geo-headers members member-records registry stream-frames; do
    corpus=".build/fuzz/corpus/$target"
    mkdir -p "$corpus"
    folder="Tests/Corpus/$target"
    [ "$target" = jitter ] && folder=Tests/Corpus/none
    [ "$target" = event ] && folder="Tests/Corpus/events"
    # Files in hex are text for people: libFuzzer gets their bytes.
    for file in "$folder"/*; do
        [ -f "$file" ] || continue
        case "$file" in
        *.hex) grep -v '^#' "$file" | tr -d ' \n' | xxd -r -p >"$corpus/$(basename "$file" .hex)" ;;
        *) cp "$file" "$corpus/" ;;
        esac
    done
    echo "== $target"
    SWIFTLET_FUZZ_TARGET=$target "$program" -max_total_time="$FUZZ_SECONDS" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
        -artifact_prefix=".build/fuzz/$target-" "$corpus" 2>&1 | tail -n 6
done
