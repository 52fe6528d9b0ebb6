#!/bin/bash
# All that needs a GPU, in at most 8 minutes, what is worth most first: bash tests/bench/gpu.sh [--rehearse] [--data FOLDER]
# Prints as it goes. Figures are JSON lines in $OUT/gpu.jsonl, where OUT is results unless given. No part can hold the others up: one
# ends by itself when its time is over, with what it has measured, and is killed where it hangs.
#
# What the parts should take on an H200, in seconds, by the figures of 2026-11-26 and guesses at what was not measured then: 10 of
# each are the start of its process, 4 of those that train the teacher.
#   invariants        50   fewer tests than the 106 that took 58
#   side by side      37   NCHW: so many cases as there is time for, some 4 s each
#   side by side      27   NHWC
#   row              107   14 + plain loop 20, 9 and 9 + default 13 + bf16 9 + bf16 stacked 8 + fp32 26
#   lanes             53   14 + 51 lanes at 0.4, 70 steps of 0.14 in all, 5 rows at 2
#   wide              47   14 + 40 lanes at 0.4, 70 steps of 0.16 in all, 2 rows at 2
#   opt in            79   14 + stacked 9 + compiled 56, of which compiling 45
#   weight gradients  25   42 cases, about 0.4 s each
#   workers           45   last, by what is left: 14 + two trainings of six students + the start of two workers
# That is 470 s. Parts that take less leave their time to those after them.
set -u
cd "$(dirname "$0")/../.." || exit
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 MPLBACKEND=agg
out=${OUT:-results}/gpu.jsonl
device=cuda small=() failed=0
case " $* " in *" --rehearse "*) device=cpu small=(--rehearse) ;; esac

part() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2 status
  shift 2
  if [ "$limit" -lt 20 ]; then # less than its start and its end
    echo "== $name: left out, $limit s are left"
    return
  fi
  echo "== $name, at most $limit s; $SECONDS s so far"
  timeout -s KILL "$limit" "$@"
  status=$?
  [ $status -eq 0 ] || failed=1
  [ $status -eq 137 ] && echo "== $name: killed at its limit. Its last line says where it was; what it printed holds"
  echo "== $name: status $status"
}
may_take() { # SECONDS: those, or what is left
  local left=$((480 - SECONDS))
  if [ $device = cpu ]; then
    echo $((8 * $1)) # a machine that rehearses may be busy
  else
    echo $(($1 < left ? $1 : left > 1 ? left : 1))
  fi
}
measure() { # NAME SECONDS SCRIPT [OPTIONS]...: 16 s before its limit it ends by itself, 10 of which its start has taken
  local name=$1 limit script=$3
  limit=$(may_take "$2")
  shift 3
  part "$name" "$limit" python "tests/bench/$script" --seconds $((limit - 16)) --device $device "$@"
}
figures() { # PART SECONDS [OPTIONS]...
  local name=$1 limit=$2
  shift 2
  measure "$name" "$limit" gpu.py "$name" --out "$out" "$@"
}

if [ $device = cpu ]; then
  part "invariants" 480 python -m pytest -q -p no:benchmark tests/test_cuda.py -k "rehearsed and have_graphs"
  measure "side by side, NCHW" 40 side_by_side.py --layout NCHW --rehearse
else
  part "invariants" 65 python -m pytest -q -p no:benchmark -n 8 -k "cuda and not rehearsed" \
    tests/test_cuda.py tests/test_augment.py tests/test_stack.py
  measure "side by side, NCHW" 45 side_by_side.py --layout NCHW
  measure "side by side, NHWC" 35 side_by_side.py --layout NHWC
fi
figures row 125 "$@"
figures lanes 65 "$@"
figures wide 60 "$@"
figures opt_in 95 "$@"
measure "weight gradients" 35 weight_gradients.py --out "$out" "${small[@]}"
figures workers 65 "$@"
echo "== $SECONDS s in all; the figures are in $out"
exit $failed
