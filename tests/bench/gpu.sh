#!/bin/bash
# All that needs a GPU, in at most 8 minutes, what is worth most first: bash tests/bench/gpu.sh [--rehearse] [--data FOLDER]
# Prints as it goes. Figures are JSON lines in $OUT/gpu.jsonl, where OUT is results unless given. No part can hold the others up.
set -u
cd "$(dirname "$0")/../.." || exit
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 MPLBACKEND=agg
out=${OUT:-results}/gpu.jsonl
device=cuda processes=8 failed=0
case " $* " in *" --rehearse "*) device=cpu processes=1 ;; esac

part() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2 status
  shift 2
  local left=$((480 - SECONDS))
  if [ $device = cpu ]; then
    limit=$((8 * limit)) # a machine that rehearses may be busy
  elif [ $limit -gt $left ]; then
    limit=$((left > 1 ? left : 1))
  fi
  echo "== $name, at most $limit s; $SECONDS s so far"
  timeout -s KILL "$limit" "$@"
  status=$?
  [ $status -eq 0 ] || failed=1
  [ $status -eq 137 ] && echo "== $name: killed at its limit. Its last line says where it was; what it printed holds"
  echo "== $name: status $status"
}
measure() { # PART SECONDS [OPTIONS]...
  local name=$1 limit=$2
  shift 2
  part "$name" "$limit" python tests/bench/gpu.py "$name" --device "$device" --out "$out" "$@"
}

if [ $device = cpu ]; then
  part "invariants" 60 python -m pytest -q -p no:benchmark tests/test_cuda.py -k "rehearsed and have_graphs"
  part "side by side, NCHW" 30 python tests/bench/side_by_side.py --layout NCHW --device cpu --rehearse
else
  part "invariants" 85 python -m pytest -q -p no:benchmark -n $processes tests/test_cuda.py tests/test_graphs.py tests/test_augment.py \
    tests/test_stack.py::test_a_network_is_bitwise_the_same_alone_and_at_any_place_beside_others
  part "side by side, NCHW" 60 python tests/bench/side_by_side.py --layout NCHW --seconds 42
  part "side by side, NHWC" 40 python tests/bench/side_by_side.py --layout NHWC --seconds 25
fi
measure row 170 "$@"
measure wide 45 "$@"
measure lanes 35 "$@"
measure workers 35 "$@"
measure alone 20 "$@"
echo "== $SECONDS s in all; the figures are in $out"
exit $failed
