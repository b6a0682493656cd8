#!/bin/sh
# Does the simulator find what it is there for? Builds a copy of this tree in .build/planted with every bug of this folder in it, each asleep
# until SWIFTLET_PLANTED names its number, and simulates each until it is found: run.sh [NUMBER…]. Prints a table; status 1 when a bug was not
# found within SEEDS seeds of either mode (2000), or a copy without any breaks a promise. Bugs of second hops are for the mode that has them.
set -eu
cd "$(dirname "$0")/../.."
planted=Tests/Planted
copy=.build/planted
seeds=${SEEDS:-2000}
batch=50

mkdir -p $copy
for part in Package.swift Sources Perf Tests; do
	rm -rf "${copy:?}/$part.new"
	cp -Rp $part $copy/$part.new
done
cp $planted/Planted.swift $copy/Sources.new/Primitives/
for patch in $planted/*.patch; do
	sed 's,^\(---\|+++\) \([ab]\)/Sources/,\1 \2/Sources.new/,' "$patch" | patch -d $copy -p1 -s -F3 || {
		echo "$patch does not fit any more: mend it" >&2
		exit 1
	}
	file=$copy/$(sed -n 's,^+++ b/Sources/,Sources.new/,p' "$patch")
	grep -q '^import Primitives$' "$file" || sed -i '0,/^$/s//\nimport Primitives\n/' "$file"
done
# Only what has changed gets a new time, so that the next build is a short one.
for part in Package.swift Sources Perf Tests; do
	if [ -d $copy/$part.new ]; then
		(cd $copy/$part.new && find . -type f) | while read -r file; do
			if cmp -s "$copy/$part/$file" "$copy/$part.new/$file"; then touch -r "$copy/$part/$file" "$copy/$part.new/$file"; fi
		done
	fi
	rm -rf "${copy:?}/$part"
	mv $copy/$part.new $copy/$part
done
${SWIFT:-swift} build -c release --product swiftlet --package-path $copy >$copy/build.log 2>&1 || {
	tail -40 $copy/build.log >&2
	exit 1
}

# simulate NUMBER MODE FIRST COUNT: the first broken promise; status 1: none.
simulate() {
	SWIFTLET_PLANTED=$1 $copy/.build/release/swiftlet simulate --mode "$2" --seed "$3" --seeds "$4" 2>/dev/null | grep -m1 '^BROKEN: '
}

# modes NUMBER: those that are to find it; and how many seeds of each make a batch.
modes() { if [ "$1" -ge 15 ]; then echo regions; else echo safety liveness; fi; }
batch_of() { if [ "$1" = regions ]; then echo 5; else echo $batch; fi; }

status=0
for mode in safety liveness regions; do
	if broken=$(simulate 0 $mode 1 $((2 * $(batch_of $mode)))); then
		echo "without a bug, $mode: $broken"
		status=1
	fi
done
[ $# -gt 0 ] || set -- $(ls $planted | sed -n 's/^0*\([0-9]*\)-.*\.patch$/\1/p')
printf '%-38s %-9s %-6s %s\n' bug mode seeds 'what gave it away'
for number in "$@"; do
	patch=$(ls $planted/"$(printf %02d "$number")"-*.patch)
	name=$(basename "$patch" .patch)
	found=
	first=1
	while [ -z "$found" ] && [ "$first" -le "$seeds" ]; do
		for mode in $(modes "$number"); do
			count=$(batch_of $mode)
			if broken=$(simulate "$number" $mode $first $count); then
				printf '%-38s %-9s ≤ %-4s %s\n' "$name" $mode $((first + count - 1)) "${broken#BROKEN: }"
				found=yes
				break
			fi
		done
		first=$((first + count))
	done
	if [ -z "$found" ]; then
		printf '%-38s NOT FOUND in %s seeds\n' "$name" "$seeds"
		status=1
	fi
done
exit $status
