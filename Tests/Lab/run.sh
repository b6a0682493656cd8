#!/bin/sh
# Runs the laboratory in namespaces of its own: network, processes, mounts. What is made in there goes when the last process of it goes, so
# that nothing is left behind whichever way it ends. Arguments go to Python's unittest:
#   run.sh                         the story, bad input, and the figures in their short form
#   SWIFTLET_LAB=short run.sh      without the figures
#   run.sh test_story -k ingress   what matches
#   SWIFTLET_LAB=long run.sh       more rounds
#   REALTIME=yes run.sh            before everything else on a machine that has other work (root)
# SWIFTLET_TEST_VENV and SWIFTLET_EXECUTABLE are those of Tests/EndToEnd/run.sh.
set -eu
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)

refuse() {
    echo "lab: $1" >&2
    exit "${SWIFTLET_LAB_REFUSED:-1}"
}
[ -x "$root/.build/lab/wan" ] || refuse "$root/.build/lab/wan is missing: make lab builds it"
[ -c /dev/net/tun ] || [ "$(id -u)" -ne 0 ] || { mkdir -p /dev/net && mknod /dev/net/tun c 10 200; } 2>/dev/null || true
[ -r /dev/net/tun ] && [ -w /dev/net/tun ] || refuse "/dev/net/tun is missing or not for this user: run it as root, with the module tun loaded"
user=""
[ "$(id -u)" -eq 0 ] || user="--user --map-root-user"
# shellcheck disable=SC2086
unshare $user --mount --net --pid --fork --kill-child true 2>/dev/null ||
    refuse "this user may not make namespaces: run it as root (in a container, with --privileged)"

# The end-to-end tests' Python, and their parts.
SWIFTLET_TEST_VENV=${SWIFTLET_TEST_VENV:-$root/.build/venv}
[ -x "$SWIFTLET_TEST_VENV/bin/python" ] || (cd ../EndToEnd && ./run.sh --help >/dev/null)
export SWIFTLET_TEST_VENV PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$root/Tests/EndToEnd"
if [ $# -eq 0 ]; then
    set -- test_story test_bad_input
    [ "${SWIFTLET_LAB:-}" = short ] || set -- "$@" test_figures
fi
# /run is empty in there: names of namespaces, temporary files and sockets of services are the room's own. A shell is process 1, which
# collects the dead.
# shellcheck disable=SC2086
${REALTIME:+chrt --rr 1} setpriv --pdeathsig KILL unshare $user --mount --net --pid --fork --kill-child --mount-proc sh -c '
    set -eu
    mount -t tmpfs lab /run
    mkdir -p /run/netns /run/tmp
    export TMPDIR=/run/tmp
    ip link set lo up
    status=0
    "$SWIFTLET_TEST_VENV/bin/python" -m unittest --verbose "$@" || status=$?
    exit $status' lab "$@" &
room=$!
# Its end is that of all in it. Ctrl-C reaches the tests themselves, too; a second one is not waited for.
trap 'trap - INT; interrupted=130' INT
trap 'kill -KILL $room; exit 143' TERM HUP
interrupted=0
status=0
wait $room || status=$?
[ "$interrupted" -eq 0 ] || { wait $room || true; exit $interrupted; }
exit $status
