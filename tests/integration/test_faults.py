"""Long jobs in the short mode of ``tests.faults``: nothing is lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.jobs import JOBS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.integration
def test_no_job_loses_anything():
    command = [sys.executable, "-m", "tests.faults", "--kills", "1", "--disks", "1"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stdout[run.stdout.index("job ") :].splitlines()  # ESPnet prints, too
    assert [line[:16].strip() for line in lines] == ["job", *JOBS]
    assert [line.split()[-2] for line in lines[1:]] == ["0"] * len(JOBS)
