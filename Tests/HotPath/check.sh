#!/bin/sh
# Looks at the machine code of the hot functions: no reference count, no allocation, no exclusivity check. A function that cannot be
# found fails too, so that a renamed one is not simply no longer looked at.
#   Tests/HotPath/check.sh [PROGRAM [LIST]]
set -eu
cd "$(dirname "$0")/../.."
program="${1:-.build/release/swiftlet-relay}"
list="${2:-Tests/HotPath/functions.txt}"
[ -x "$program" ] || { echo "hotpath: $program is missing: build it first" >&2; exit 1; }

forbidden='swift_(retain|release|bridgeObject|allocObject|beginAccess|unknownObject|isUniquelyReferenced|once|slowAlloc)|<(malloc|calloc|realloc|free|posix_memalign)@'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nm -S "$program" | grep -i ' t ' >"$work/symbols"
status=0
functions=0
grep -v -e '^#' -e '^$' "$list" >"$work/names" || { echo "hotpath: $list names no function"; exit 1; }
while read -r name; do
    grep -F -e "$name" "$work/symbols" >"$work/found" || { echo "hotpath: no function matches $name"; status=1; continue; }
    while read -r start size _ symbol; do
        functions=$((functions + 1))
        # By its size: behind it may lie functions whose names have been stripped.
        objdump -d --no-show-raw-insn --start-address="0x$start" --stop-address="$((0x$start + 0x$size))" "$program" >"$work/code"
        grep -qE '[[:space:]](call|jmp|ret)' "$work/code" || { echo "hotpath: $symbol has no code"; status=1; }
        if grep -E '[[:space:]](call|jmp)' "$work/code" | grep -E "$forbidden" >"$work/bad"; then
            echo "hotpath: $symbol"
            cat "$work/bad"
            status=1
        fi
    done <"$work/found"
done <"$work/names"
[ $status -eq 0 ] && echo "hotpath: $functions functions in $program, nothing counted, nothing allocated"
exit $status
