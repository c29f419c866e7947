"""Benchmark, scale and load run on the recipe's clips."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def test_a_row_compares_us_with_a_peer():
    command = [sys.executable, "local/benchmark.py", "--json", "--rounds", "1"]
    command += ["--rows", "decode_hf_encoded"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (row,) = json.loads(done.stdout)["rows"]
    assert row["ratio"] > 0 and row["counted"] == pytest.approx(1, abs=0.1)
    assert row["note"].startswith("16 clips")


def test_sizes_of_whisper_are_counted():
    command = [sys.executable, "local/scale.py", "--rounds", "1", "--tables", "size"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if "|" in line]
    sizes = {row[0].strip(): [x.strip() for x in row[1:]] for row in rows}
    assert sizes["tiny"][:2] == ["36", "2.06"] and sizes["tiny"][-1] != "-"
    assert sizes["medium"][0] == "728"


def test_long_work_leaves_all_as_it_was(recipe):
    command = [sys.executable, "local/load.py", "--recipe", str(recipe), "--json"]
    command += ["--count", "50", "--rows", "batches", "single", "switches", "threads"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout)
    assert [row["count"] for row in rows] == [50, 10, 50, 10]
    assert not any(row["wrong"] for row in rows)
