#!/bin/sh
# What is heard under loss: speech of espeak-ng through Perf/AudioBench in virtual time, scored by STOI and PESQ (PyPI). Prints a table.
#   QUICK=1 Perf/audio-loss.sh       the rows with 10 % loss and 30 ms of jitter alone
#   JITTER=80 LOSS=10,20             only these rows
set -eu
cd "$(dirname "$0")/.."
Tuning/install-packages.sh espeak-ng sox python3-venv
swift build -c release --product audio-bench >/dev/null
venv=.build/audio-venv
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install -q numpy pystoi pesq
exec "$venv/bin/python" Perf/audio_loss.py .build/release/audio-bench
