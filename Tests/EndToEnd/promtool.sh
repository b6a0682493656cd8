#!/bin/sh
# Prints where promtool is. Debian has it in the package of the Prometheus server, which would start as a service on the relay's own port 9090 when
# it is installed: so the package is only unpacked, into .build/promtool.
set -eu
command -v promtool && exit 0
folder=$(cd "$(dirname "$0")/../.." && pwd)/.build/promtool
if [ ! -x "$folder/usr/bin/promtool" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    # As root apt would warn that its own user may not write here.
    (cd "$folder" && { apt-get -q -o APT::Sandbox::User=root download prometheus || { apt-get update -q && apt-get -q -o APT::Sandbox::User=root download prometheus; }; }) >&2
    dpkg-deb -x "$folder"/prometheus_*.deb "$folder"
fi
echo "$folder/usr/bin/promtool"
