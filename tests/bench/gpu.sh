#!/bin/bash
# All that needs a GPU, in at most 8 minutes, what is worth most first: bash tests/bench/gpu.sh [--rehearse] [--data FOLDER]
# Prints as it goes, also into gpu.log. Figures are JSON lines in gpu.jsonl. Both are in $OUT, which is results unless given. No part
# can hold the others up: one ends by itself when its time is over, with what it has measured. One that hangs tells in which line of
# Python, and is killed. The figures of a part that fails hold. ONLY="row kernels" in the environment leaves out all other parts.
#
# What the parts take on an H200, in seconds, as measured on 2026-11-28. 10 of each are the start of its process.
#   start             7
#   invariants       78
#   row              95
#   opt_in          115   of which compiling 45 in each of two
#   lanes            33
#   wide             60
#   kernels          20   each
#   side_by_side     54   four cases, the likeliest to hang first; tests/test_no_hang.py runs all of them
#   workers          39
#   weight_gradients 20   42 cases
# The last three have what is left of 480 s. Parts that take less leave their time to those after them.
set -u
cd "$(dirname "$0")/../.." || exit
out=${OUT:-results}/gpu.jsonl
mkdir -p "${out%/*}" || exit
log=${out%/*}/gpu.log
if [ "${1:-}" != logged ]; then
  bash tests/bench/gpu.sh logged "$@" 2>&1 | tee "$log"
  exit "${PIPESTATUS[0]}"
fi
shift
ulimit -c 0 # what is killed leaves no core
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 MPLBACKEND=agg
for python in python python3; do # the first that has torch
  "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)" 2>/dev/null && break
done
device=cuda small=() failed=0
case " $* " in *" --rehearse "*) device=cpu small=(--rehearse) ;; esac

part() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2 status
  shift 2
  case " ${ONLY:-$name} " in *" $name "*) ;; *) return ;; esac
  if [ "$limit" -lt 20 ]; then # less than its start and its end
    echo "== $name: left out, $limit s are left"
    return
  fi
  echo "== $name, at most $limit s; $SECONDS s so far"
  timeout -s ABRT -k 5 "$limit" "$@" # ABRT: Python tells where each of its threads is
  status=$?
  [ $status -eq 0 ] || failed=1
  case $status in 124 | 137) echo "== $name: killed at its limit. Its last lines say where it was; what it printed before holds" ;; esac
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
  part "$name" "$limit" "$python" "tests/bench/$script" --seconds $((limit - 16)) --device $device "$@"
}
figures() { # PART SECONDS [OPTIONS]...
  local name=$1 limit=$2
  shift 2
  measure "$name" "$limit" gpu.py "$name" --out "$out" "$@"
}

# What the machine has. Where this ends in an error, nothing else could do better.
"$python" -c "
import sys, torch, kdbench.cli, kdbench.runner.run
from importlib.util import find_spec
print('Python', sys.version.split()[0], 'torch', torch.__version__, torch.backends.cudnn.version(), 'kdbench', kdbench.__file__)
print('lacking:', [name for name in ('pytest', 'xdist', 'hypothesis', 'timm', 'torchvision', 'scipy') if not find_spec(name)])
if sys.argv[1] == 'cuda':
    print(torch.cuda.get_device_properties(0))
" $device || exit
echo "== started after $SECONDS s"
if [ $device = cpu ]; then
  part invariants 480 "$python" -m pytest -q -p no:benchmark tests/test_cuda.py -k "rehearsed and have_graphs"
else
  part invariants 110 env OMP_NUM_THREADS=1 "$python" -m pytest -v --tb=short -p no:benchmark -n 12 --dist worksteal --durations=8 \
    -k "cuda and not rehearsed" \
    tests/test_cuda.py tests/test_augment.py tests/test_stack.py
fi
figures row 125 "$@"
figures opt_in 147 "$@"
figures lanes 65 "$@"
figures wide 75 "$@"
for arithmetic in "bf16, stacked" bf16; do # a process for each: a second profile in one ends in a fault of memory
  part kernels "$(may_take 35)" "$python" tests/bench/kernels.py "$arithmetic" --device $device --out "$out" \
    --traces "${out%/*}/traces" "${small[@]}"
done
measure side_by_side 61 side_by_side.py --layout NCHW NHWC "${small[@]}"
figures workers 65 "$@"
measure weight_gradients 35 weight_gradients.py --out "$out" "${small[@]}"
echo "== $SECONDS s in all; the figures are in $out, all that was printed in $log"
exit $failed
