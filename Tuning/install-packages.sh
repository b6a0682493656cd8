#!/bin/sh
# Installs those of the named Debian packages that are missing; says nothing when none is. Asks nothing.
set -eu
missing=""
for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "installing Debian packages:$missing"
root=""
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
        echo "These packages are missing and need root to install:$missing" >&2
        echo "Run as root: apt-get install --no-install-recommends$missing" >&2
        exit 1
    }
    root="sudo -n"
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
$root apt-get install -y -q --no-install-recommends $missing >/tmp/swiftlet-apt.$$ 2>&1 || {
    $root apt-get update -q >/dev/null
    $root apt-get install -y -q --no-install-recommends $missing >/tmp/swiftlet-apt.$$ 2>&1 || {
        tail -n 20 /tmp/swiftlet-apt.$$ >&2
        exit 1
    }
}
rm -f /tmp/swiftlet-apt.$$
