"""Ray, of one node: what is no cluster, or wants a token, is said soon; a sweep. tests/cluster/ray.sh kills a node."""

import contextlib
import http.server
import os
import socket
import subprocess
import sys
import tempfile
import threading

import psutil
import pytest
from test_dask import fails, table
from test_sweep import assert_same, trained

from sweeps.launch import ray


@pytest.fixture
def silent():
    """The port of one who listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def web():
    """The port of a server of HTTP/1."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        server.RequestHandlerClass.log_message = lambda *_: None
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_server_other_than_ray_is_refused_at_once(monkeypatch, silent, web, scheme):
    monkeypatch.setattr(ray, "_CONNECT", 0.5)
    for port in (silent, web):
        with pytest.raises(ConnectionError, match="does not speak gRPC"):
            ray._probe(f"{scheme}127.0.0.1:{port}")


@pytest.fixture
def words(small):
    return ["--multirun", *small, "hydra/launcher=ray", "hydra.launcher.address"]


@pytest.mark.heavy
def test_no_cluster_is_said(words, command, silent):
    *words, address = words
    for given in (f"127.0.0.1:{silent}", f"ray://127.0.0.1:{silent}", "127.0.0.1:1", "127.0.0.1", "nowhere.invalid:1"):
        fails(command(*words, f"{address}={given}"), f"hydra.launcher.address={given}: no Ray cluster there: ")


@pytest.fixture(scope="module")
def head():
    """The address of a cluster of one node, and the environment with the token that it asks for."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # sockets need a shorter path than tmp_path
        token = os.path.join(folder, "token")
        with open(token, "w") as file:
            file.write("a" * 64)
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token}
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        flags = ("--num-cpus", "1", "--include-dashboard=false", "--disable-usage-stats")
        subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--node-ip-address", "127.0.0.1",
             "--port", str(port), *flags],
            env=os.environ | secret | {"RAY_TMPDIR": folder},
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        yield f"127.0.0.1:{port}", secret
        ours = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("RAY_TMPDIR") == folder:
                    process.kill()
                    ours.append(process)
        psutil.wait_procs(ours, timeout=10)


@pytest.mark.heavy
def test_a_token_that_is_missing_or_wrong_is_said(words, command, head, tmp_path):
    *words, option = words
    address, secret = head
    words.append(f"{option}={address}")
    other = tmp_path / "token"
    other.write_text("b" * 64)
    other.chmod(0o600)
    asks = f"hydra.launcher.address={address}: no Ray cluster there: it needs a token, or another one"
    fails(command(*words), asks)
    fails(command(*words, **secret | {"RAY_AUTH_TOKEN_PATH": str(other)}), asks)
    missing = secret | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")}
    fails(command(*words, **missing), "RAY_AUTH_TOKEN_PATH is set but file cannot be opened")


@pytest.mark.heavy
def test_ray_and_the_pool_give_the_same_bits(words, command, head, tmp_path):
    *words, option = words
    address, secret = head
    words += ["lr=0.1,0.05", "seed=0,1,2"]
    done = command(*words, f"{option}={address}", timeout=200, **secret)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    pool = command(*(word for word in words if "launcher" not in word and "out=" not in word), f"out={tmp_path}/pool")
    assert table(done) == table(pool)
    assert_same(tmp_path / "out", tmp_path / "pool")
    assert "6 finished already" in command(*words, f"{option}={address}", timeout=200, **secret).stdout
    assert set(trained(tmp_path / "out").values()) == {1}
