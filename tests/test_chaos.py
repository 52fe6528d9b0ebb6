"""Whatever happens to drivers, workers, disks and clocks: nothing is lost, done twice, broken or left over. In short.

`python tests/chaos/run.py --runs 200` is the long form.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="it looks at processes as Linux shows them")
def test_disturbed_runs_end_as_undisturbed_ones(tmp_path):
    script = Path(__file__).parent / "chaos" / "run.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(script), "--short", "--runs", "2", "--seed", "0"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["runs"] == 2 and not told["failed"] and told["trials of a run"] == 4
