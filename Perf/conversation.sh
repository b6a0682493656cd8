#!/bin/sh
# How long a caller waits for an answer, and how fast an interruption silences one: aiortc speaks with embedded:parrot over loopback.
#
#   Perf/conversation.sh [TURNS]
#
# Needs `swift build -c release` and the test clients of `make e2e` (SWIFTLET_TEST_VENV, else .build/venv).
set -eu
cd "$(dirname "$0")/.."
exec "${SWIFTLET_TEST_VENV:-.build/venv}/bin/python" Perf/conversation.py "$@"
