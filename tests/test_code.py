"""A function that is in no file has a fingerprint too: results of its older text are not reused in silence."""

import os
import subprocess
import sys

import pytest

from sweeps.runs.directory import RunDir
from sweeps.runs.session import recorded_code

SCRIPT = """
import sweeps

def helper(x):
    return {FACTOR} * x if x in {{1, 2, "three"}} else 0

def score(cfg):
    return max(helper(x) for x in [cfg.x])

sweeps.sweep(score, {{"x": [1, 2]}}, name="typed", code="{CODE}")
"""


@pytest.fixture
def typed(tmp_path):
    """Give Python the script on stdin; returns what it printed."""

    def run(factor, code="warn", seed="0"):
        script = SCRIPT.format(FACTOR=factor, CODE=code)
        done = subprocess.run(
            [sys.executable, "-"], input=script, cwd=tmp_path, env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert (done.returncode == 0) == (code != "refuse"), done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_a_changed_helper_of_a_function_without_a_file_is_told(typed):
    assert "2 to train" in typed(2)
    same = typed(2, seed="1")
    assert "2 finished already" in same
    assert "other code" not in same
    other = typed(3)
    assert "2 of 2 finished runs were made by other code (__main__:helper)" in other
    assert "other code" in typed(3, code="refuse")
    assert "2 to train" in typed(3, code="retrain")
    assert "other code" not in typed(3)


def test_an_edit_during_a_sweep_is_not_taken_for_what_ran(tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(
        "import time, sweeps\nimport helper\n"
        "def score(cfg):\n    time.sleep(0.5)\n    return helper.double(cfg.x)\n"
        'sweeps.sweep(score, {"x": [1, 2, 3, 4]}, workers=1, name="slow")\n'
    )
    (tmp_path / "helper.py").write_text("def double(x):\n    return 2 * x\n")
    with subprocess.Popen([sys.executable, script], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("[1/4] finished"):
                for path in (script, tmp_path / "helper.py"):
                    path.write_text(path.read_text() + "# an edit\n")
    assert process.returncode == 0
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert "4 of 4 finished runs were made by other code (__main__, helper)" in done.stdout, done.stdout + done.stderr


def test_a_pipe_in_place_of_the_provenance_is_not_waited_for(tmp_path):
    run = RunDir(tmp_path)
    os.mkfifo(run.provenance)
    assert recorded_code(run) is None
