"""What the tests share: a cache and a key of their own, a small dataset in the user's format, the real command line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# No test depends on how fast the machine is at the moment.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parent.parent

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # In the background of a script, or under nohup, Ctrl-C is ignored, and by every process that a test starts, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    os.environ["MLP_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def small_npz(tmp_path_factory):
    """Three Gaussian clouds in 20 dimensions, 640 + 200 of them: an epoch takes milliseconds."""
    rng = np.random.default_rng(1)
    centres = rng.normal(0, 1.5, (3, 20))

    def cloud(count):
        y = rng.integers(0, 3, count)
        return (centres[y] + rng.normal(size=(count, 20))).astype(np.float32), y

    (x_train, y_train), (x_test, y_test) = cloud(640), cloud(200)
    path = tmp_path_factory.mktemp("data") / "clouds.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture
def small(small_npz, tmp_path):
    """The words that train on it, in a results tree of the test's own."""
    return ("data=npz", f"data.path={small_npz}", "model.hidden=[16]", "bsz=50", "epochs=4", f"out={tmp_path / 'out'}")


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """Two epochs on real MNIST, to 96 %: (results tree, run id)."""
    from mlp import compose, train

    out = tmp_path_factory.mktemp("real") / "outputs"
    result = train(compose("epochs=2", "lr=0.1", "threads=1", f"out={out}"))
    return out, result.run_id


@pytest.fixture
def command(tmp_path):
    """Run ``python -m MODULE words…`` to its end, in an empty directory."""

    def run(*words, module="mlp.train", cwd=tmp_path, timeout=120, **env):
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, words)],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=timeout,
            env=os.environ | env,
        )

    return run
