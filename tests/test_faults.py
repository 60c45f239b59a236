"""scripts/faults and scripts/soak in short: real kills, a full disk, damaged files, all survived without a loss."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_every_fault_is_survived(tmp_path):
    words = [sys.executable, str(ROOT / "scripts" / "faults.py"), "--short", "--json", str(tmp_path / "faults.json")]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    faults = {fault["name"]: fault for fault in json.loads((tmp_path / "faults.json").read_text())["faults"]}
    assert faults["kill_run"]["tried"] >= 2
    assert all(fault["survived"] == fault["tried"] for fault in faults.values())
    assert not any(fault["lost"] for name, fault in faults.items() if name != "damage")


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_a_minute_of_soaking_leaves_nothing_behind(tmp_path):
    words = [
        sys.executable,
        str(ROOT / "scripts" / "soak.py"),
        "--hours",
        "0.02",
        "--json",
        str(tmp_path / "soak.json"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    soak = json.loads((tmp_path / "soak.json").read_text())
    assert soak["sweeps"] >= 1
    assert sum(fault["tried"] for fault in soak["faults"].values()) >= 1
    assert not soak["problems"]
