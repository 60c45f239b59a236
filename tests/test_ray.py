"""Sweeps on a real Ray cluster of one node; tests/cluster/ray.sh has two, of which one is killed."""

import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from test_dask import kill, table, until
from test_sweep import assert_same, trained

pytestmark = pytest.mark.heavy
pytest.importorskip("ray")


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A head's address; none of its processes outlives the test."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # not tmp_path: Ray's sockets want a short one
        token = Path(folder, "token")
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        for name, value in (("TMPDIR", folder), ("AUTH_MODE", "token"), ("AUTH_TOKEN_PATH", str(token))):
            monkeypatch.setenv(f"RAY_{name}", value)  # the token since Ray listens on more than 127.0.0.1
        words = ["start", "--head", "--block", "--port=0", "--num-cpus=2"]
        words += ["--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"]
        with (tmp_path / "ray.log").open("wb") as log:
            program = Path(sys.executable).with_name("ray")
            head = psutil.Popen([program, *words], stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
        address = Path(folder, "ray_current_cluster")
        until(lambda: address.exists() and address.read_text())
        yield address.read_text().strip()
        kill(head)


def test_ray_and_the_pool_give_the_same_bits(cluster, small, command, tmp_path):
    words = ["--multirun", *[word for word in small if not word.startswith("out=")], "lr=0.1,0.05", "seed=0,1,2"]
    on_ray = (*words, f"out={tmp_path / 'out'}", "hydra/launcher=ray", f"hydra.launcher.address={cluster}")
    done = command(*on_ray, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert table(done) == table(command(*words, f"out={tmp_path / 'pool'}"))
    assert_same(tmp_path / "out", tmp_path / "pool")
    assert "6 finished already" in command(*on_ray, timeout=200).stdout
    assert set(trained(tmp_path / "out").values()) == {1}
