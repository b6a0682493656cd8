#!/bin/sh
# Builds a program that uses Pion from Debian's packages (golang-go, golang-github-pion-webrtc.v3-dev), without any network:
#   build-pion.sh SOURCE.go TARGET
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Without modules, a path's /v3 is understood only in a folder of GOPATH that has a go.mod.
mkdir -p "$work/src/peer"
cp "$1" "$work/src/peer/main.go"
echo "module peer" >"$work/src/peer/go.mod"
(cd "$work/src/peer" && GO111MODULE=off GOPATH="$work:/usr/share/gocode" GOCACHE="$work/cache" GOFLAGS=-buildvcs=false go build -o "$work/peer-program" .)
mv "$work/peer-program" "$2"
