#!/bin/sh
# What calls cost a transceiver, one figure after the other. Prints; writes nothing. See Perf/README.md.
#   CALLS=1000 SECONDS_EACH=10  callers, and how long they speak
#   REALTIME=yes                for a machine with other work: the bench goes before everything else (root)
#   ROWS="echo audio"           only some of: echo audio decode converse pion packet instructions
set -eu
cd "$(dirname "$0")/.."
program=.build/release/swiftlet
calls="${CALLS:-1000}"
seconds="${SECONDS_EACH:-10}"
rows="${ROWS:-echo audio decode converse pion packet instructions}"

bench() { "$program" bench calls "$@" ${REALTIME:+--realtime yes}; }
wanted() { case " $rows " in *" $1 "*) echo; echo "## $1: $2" ;; *) return 1 ;; esac }

echo "$(uname -r), $(nproc) processors, load $(cut -d' ' -f1-3 /proc/loadavg)"
if wanted echo "packets go back as they came, and a data channel"; then bench --calls "$calls" --seconds "$seconds"; fi
if wanted audio "the same without a data channel"; then bench --calls "$calls" --seconds "$seconds" --data-channel no; fi
# A core decodes some 300 calls, and speaks with some 70.
if wanted decode "audio is heard, and not answered"; then bench --mode decode --calls "$((calls / 10))" --seconds "$seconds"; fi
if wanted converse "audio is heard, and answered nearly always"; then bench --mode converse --calls "$((calls / 20))" --seconds "$seconds"; fi
if wanted pion "the same of a server made of Pion, which is all there is: no relay"; then
    if command -v go >/dev/null && [ -d /usr/share/gocode/src/github.com/pion/webrtc ]; then
        Tests/Peers/build-pion.sh Perf/Peers/pion.go .build/pion-echo
        bench --calls "$calls" --seconds "$seconds" --server-program .build/pion-echo
        bench --calls "$calls" --seconds "$seconds" --data-channel no --server-program .build/pion-echo
    else
        echo "Pion is not installed: make deps-peers"
    fi
fi
# For the rows that count instructions: a program that is the transceiver under callgrind.
profiled() {
    command -v valgrind >/dev/null || { echo "valgrind is missing"; exit 0; }
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # This valgrind cannot read the debug information of Swift's compiler.
    objcopy --strip-debug .build/release/swiftlet-transceiver "$work/swiftlet-transceiver"
    objcopy --strip-debug "$program" "$work/swiftlet"
    printf '#!/bin/sh\nexec valgrind --tool=callgrind --callgrind-out-file=%s --log-file=%s %s "$@"\n' \
        "$work/out" "$work/log" "$work/swiftlet-transceiver" >"$work/run"
    chmod +x "$work/run"
}
if wanted packet "instructions of the transceiver for a packet there and back"; then
    profiled
    # Instructions, and packets that were echoed.
    spoken() {
        bench --calls 20 --data-channel no --rate 20 --idle-seconds 0 --seconds "$1" --slow yes --json yes --transceiver-program "$work/run" >"$work/row"
        echo "$(sed -n 's/.*Collected : //p' "$work/log") $(sed -n 's/.*"heard": *\([0-9]*\).*/\1/p' "$work/row")"
    }
    # What both have in common is start-up and set-up.
    echo "$(spoken 5) $(spoken 15)" | { read -r few heard many more; echo "$(((many - few) / (more - heard))) the whole program, 1,000 a second, most in turns of their own"; }
    for batch in 1 16 64; do
        valgrind --tool=callgrind --callgrind-out-file="$work/echo" --collect-atstart=no '--toggle-collect=*SessionRigV7measure*' \
            "$work/swiftlet" bench session --packets 6400 --calls 64 --batch "$batch" >"$work/log" 2>&1
        echo "$(($(sed -n 's/.*Collected : //p' "$work/log") / 6400)) the core alone, $batch in a turn"
    done
fi
if wanted instructions "of the transceiver for each call, from the offer to the end of an audio-less call"; then
    profiled
    collected() {
        bench --calls "$1" --rate 20 --idle-seconds 0 --seconds 0 --slow yes --transceiver-program "$work/run" >/dev/null
        sed -n 's/.*Collected : //p' "$work/log"
    }
    few=$(collected 20)
    many=$(collected 120)
    # What both have in common is start-up.
    echo "$(((many - few) / 100)) instructions per call"
fi
