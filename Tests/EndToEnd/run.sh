#!/bin/sh
# Runs the end-to-end tests against .build/release/swiftlet, all of them (everything.py), or what arguments to Python's unittest name, for instance
#   run.sh test_calls.Aiortc          one class
#   run.sh -k ipv6                    what matches
#   run.sh test_harness test_page     what needs no server
#
# SWIFTLET_TEST_VENV      a ready Python environment; without it one is made in .build/venv from requirements.txt
# SWIFTLET_EXECUTABLE     the program to test
# SWIFTLET_TEST_ARTIFACTS where screenshots of failed tests go (.build/e2e)
set -eu
cd "$(dirname "$0")"

if [ -z "${SWIFTLET_TEST_VENV:-}" ]; then
    SWIFTLET_TEST_VENV=$(cd ../.. && pwd)/.build/venv
    if ! cmp -s requirements.txt "$SWIFTLET_TEST_VENV/installed.txt"; then
        echo "Installing the test clients into $SWIFTLET_TEST_VENV"
        python3 -m venv "$SWIFTLET_TEST_VENV"
        "$SWIFTLET_TEST_VENV/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
        cp requirements.txt "$SWIFTLET_TEST_VENV/installed.txt"
    fi
fi

export PYTHONDONTWRITEBYTECODE=1
[ $# -gt 0 ] || exec "$SWIFTLET_TEST_VENV/bin/python" everything.py
exec "$SWIFTLET_TEST_VENV/bin/python" -m unittest --verbose "$@"
