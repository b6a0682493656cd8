#!/bin/sh
# Every figure that the relay is held to, one after the other, each beside what it is compared with. Prints; writes nothing. See Perf/README.md.
#   ROUNDS=7 MILLISECONDS=500  turns of each contestant, and how long each is
#   REALTIME=yes               for a machine with other work: the bench goes before everything else (root)
#   ROWS="up burst"            only some of: instructions saturation up echo even hops rate latency memory workers bad flood
set -eu
cd "$(dirname "$0")/.."
program=.build/release/swiftlet
rounds="${ROUNDS:-7}"
milliseconds="${MILLISECONDS:-500}"
rows="${ROWS:-instructions saturation up echo even hops rate latency memory workers bad flood}"
common="--rounds $rounds --milliseconds $milliseconds${REALTIME:+ --realtime yes}"
# As it is by default, and without the adaptive gather.
relays=relay,relay+gather-us=0
peers=nginx,coturn

bench() { "$program" bench "$@" $common; }
wanted() { case " $rows " in *" $1 "*) echo; echo "## $1: $2" ;; *) return 1 ;; esac }

echo "$(uname -r), $(nproc) processors, load $(cut -d' ' -f1-3 /proc/loadavg), relays: $relays"
if wanted instructions "of our own for each packet of a known flow, and allocations"; then
    if command -v valgrind >/dev/null; then ONLY=instructions Perf/bench.sh; else echo "valgrind is missing"; fi
fi
if wanted saturation "client to trunk, more than it can take"; then
    bench load --against "$relays,bare,plain" --way up --flows 3000 --pattern saturation
fi
if wanted up "client to trunk, 150,000 packets a second in bursts of 64"; then
    bench load --against "$relays,bare,plain" --way up --flows 3000 --pattern burst:64
fi
if wanted echo "1,000 calls, echoed, in bursts of 32"; then
    bench load --against "$relays,relay-uring,bare,plain,$peers" --way echo --flows 1000 --pattern burst:32
fi
if wanted even "400 calls, echoed, evenly spaced"; then
    bench load --against "$relays,relay-uring,bare,plain,$peers" --way echo --flows 400 --pattern even
fi
if wanted hops "a relay behind another one (second-hop is measured, its packets pass both)"; then
    bench load --against "relay,second-hop,bare" --way up --flows 3000 --pattern burst:64
    bench load --against "relay,second-hop,bare" --way echo --flows 1000 --pattern burst:32
    bench load --against "relay,second-hop,bare" --way echo --flows 400 --pattern even
    bench load --against "relay+gather-us=0,second-hop+gather-us=0,bare" --way echo --flows 400 --pattern even
fi
if wanted rate "the most without loss, each way and both"; then
    "$program" bench rate --against "$relays,bare" --flows 1000 --rounds 3 --milliseconds 500 ${REALTIME:+--realtime yes}
fi
if wanted latency "at half of what the bare loop takes there and back"; then
    half="${HALF:-50000}"
    echo "($half packets a second; HALF= sets another)"
    bench load --against "$relays,bare" --way echo --flows 1000 --rate "$half" --pattern burst:8
fi
if wanted memory "200,000 flows"; then "$program" bench memory --against relay; fi
if wanted workers "two workers beside one, in what the generator leaves them"; then
    # The second worker shares its processor with the generator, which must not come before it.
    common="--rounds $rounds --milliseconds $milliseconds"
    bench load --against "relay,relay+workers=2" --way echo --flows 1000 --pattern burst:32
    bench load --against "relay,relay+workers=2" --way up --flows 3000 --pattern saturation
    common="$common${REALTIME:+ --realtime yes}"
fi
if wanted bad "packets that are dropped, beside packets that are not"; then bench bad; fi
if wanted flood "500 calls through a flood of 200,000 sources"; then bench flood; fi
