#!/bin/bash
# One piece of a long run, to go on with on another machine of the same kind:
#   bash tests/bench/row_piece.sh SUITE TIME FROM TO [OPTIONS OF kdbench run]
# Unpacks what an earlier piece left in the folder FROM (the first piece finds nothing there), runs the suite for TIME, such as 8m,
# and packs the results directory into the folder TO: results.tar.gz.00 and so on, of 15 MiB at most. Decoded images and reports,
# which are made anew, stay behind, and so do the notes on runs that are over. The exit status is that of `kdbench run`: 3 while there
# is more to do, 0 when all is done.
set -u -o pipefail
suite=$1 time=$2 from=$3 to=$4
shift 4
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
if [ -e "$from/results.tar.gz.00" ]; then
  cat "$from"/results.tar.gz.?? | tar -xzf - -C "$results" || exit 2
fi
python -m kdbench run "$suite" --results "$results" --stop-after "$time" "$@"
status=$?
mkdir -p "$to" && rm -f "$to"/results.tar.gz.??
tar -czf - -C "$results" --exclude ./cache --exclude ./reports --exclude ./runs . | split -b 15m -d -a 2 - "$to/results.tar.gz." || exit 2
ls -l "$to"
exit $status
