"""Every test, several files at a time: most of a test's time is waiting. Files that count lost packets or measure have the machine to themselves, at the end.

    SWIFTLET_TEST_JOBS=N   files at a time; 2 without it
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

FOLDER = pathlib.Path(__file__).parent
JOBS = max(1, int(os.environ.get("SWIFTLET_TEST_JOBS", "2")))
ALONE = ["test_flood", "test_conversation", "test_faults"]
# These bear each other, but not a browser that draws.
QUIET = ["test_redis", "test_faults_clients"]
# The longest first, so that none of them is left over at the end.
LONG_FIRST = ["test_members", "test_tcp", "test_calls", "test_grpc_backends", "test_console", "test_dashboard", "test_backends", "test_drain"]


class Run:
    """One file's tests in a process of their own."""

    def __init__(self, module):
        self.module = module
        self.began = time.monotonic()
        self.output = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "unittest", "--verbose", module], cwd=FOLDER, stdout=self.output, stderr=subprocess.STDOUT)

    def report(self):
        """Prints what it said and returns (run, failed, skipped)."""
        self.output.seek(0)
        text = self.output.read().decode(errors="replace")
        print(f"\n==== {self.module}, {time.monotonic() - self.began:.0f} s\n{text}", flush=True)
        ran = re.search(r"^Ran (\d+) test", text, re.MULTILINE)
        count = lambda word: sum(int(number) for number in re.findall(rf"\b{word}=(\d+)", text.rsplit("\nRan ", 1)[-1]))
        failed = count("failures") + count("errors") + count("unexpected successes")
        # A file that could not even be read, or that died, is a failure as well.
        if self.process.returncode and not failed:
            failed = 1
        return (int(ran[1]) if ran else 0), failed, count("skipped")


def run(modules, jobs):
    totals, failing = [0, 0, 0], []
    waiting, running = list(modules), []
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(Run(waiting.pop(0)))
        for one in [one for one in running if one.process.poll() is not None]:
            running.remove(one)
            result = one.report()
            totals = [total + part for total, part in zip(totals, result)]
            if result[1]:
                failing.append(one.module)
        time.sleep(0.1)
    return totals, failing


def main():
    modules = sorted(path.stem for path in FOLDER.glob("test_*.py"))
    together = [module for module in modules if module not in ALONE + QUIET]
    together.sort(key=lambda module: (LONG_FIRST.index(module) if module in LONG_FIRST else len(LONG_FIRST), module))
    parts = [run(together, JOBS), run(ALONE, 1), run(QUIET, JOBS)]
    tests, failed, skipped = (sum(totals[place] for totals, _ in parts) for place in range(3))
    if failing := [module for _, modules in parts for module in modules]:
        print(f"failed: {', '.join(failing)}")
    print(f"{max(0, tests - failed - skipped)} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
