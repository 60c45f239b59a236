"""What is built installs, and runs in an empty directory with the configurations that it brings."""

import os
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory):
    """Runs an installed command or module in the directory given."""
    target = tmp_path_factory.mktemp("installed")
    words = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index", "--no-deps"]
    python(*words, "--target", target, wheel(dist), cwd=target)

    def run(program, *words, cwd, status=0):
        start = [target / "bin" / program] if (target / "bin" / program).exists() else ["-m", program]
        return python(*start, *words, cwd=cwd, status=status, PYTHONPATH=str(target)).stdout

    run.target = target
    return run


def python(*words, cwd, status=0, **env):
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def build(source, folder, *targets):
    python("-m", "hatchling", "build", "-d", folder, *targets, cwd=source)


def wheel(folder):
    (path,) = folder.glob("*.whl")
    return path


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {item.filename: item.CRC for item in archive.infolist()}


def test_the_wheel_holds_the_configurations_and_mnist(dist):
    held = contents(wheel(dist))
    configurations = {f"mlp/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*") if path.is_file()}
    assert len(configurations) > 20
    assert "mlp/conf/study/report/curves.csv" in configurations
    assert configurations <= held.keys()
    assert sum(name.startswith("mlp/mnist/") and name.endswith(".gz") for name in held) == 4
    roots = {name.split("/")[0] for name in held}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"mlp", "sweeps", "hydra_plugins"}


def test_the_sdist_builds_the_same_wheel(dist, tmp_path):
    (path,) = dist.glob("*.tar.gz")
    # tarfile has no filter before Python 3.11.4, and wants one from 3.12 on.
    subprocess.run(["tar", "xf", path, "-C", tmp_path], check=True)
    (source,) = tmp_path.iterdir()
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "mkdocs.yml"} <= {
        path.name for path in source.iterdir()
    }
    build(source, tmp_path / "again", "-t", "wheel")
    assert contents(wheel(tmp_path / "again")) == contents(wheel(dist))


def test_it_runs_in_an_empty_directory(installed, tmp_path):
    where = "import mlp, sweeps, hydra_plugins.mlp_sweeps as p; print(mlp.__file__, sweeps.__file__, p.__file__)"
    files = python("-c", where, cwd=tmp_path, PYTHONPATH=str(installed.target)).stdout.split()
    assert all(file.startswith(str(installed.target)) for file in files)  # not the checkout
    assert "finished: 1/1 epochs" in installed("mlp-train", "epochs=1", cwd=tmp_path)
    assert "relu-ce-360-" in installed("mlp-sweeps", "ls", cwd=tmp_path)
    assert installed("sweeps", "collect", cwd=tmp_path).startswith("1 runs (1 finished), 1 epochs\n")
    printed = installed("mlp-train", "--multirun", "epochs=1", "activ=relu,gelu", "model.hidden=[8]", cwd=tmp_path)
    assert "2 finished;" in printed
    assert "21 to train" in installed("mlp-train", "--multirun", "experiment=report", "--dry-run", cwd=tmp_path)
    installed("mlp-train", "activ=none", cwd=tmp_path, status=2)
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


def test_a_directory_of_the_users_own(installed, tmp_path):
    for name, text in {
        "activ/smooth": "name: gelu\napproximate: none\n",
        "experiment/widths": (
            "# @package _global_\nepochs: 1\n"
            "hydra: {sweeper: {grids: {widths: {model.hidden: [[8], [16]], activ: 'smooth,relu'}}}}\n"
        ),
        "experiment/tiny": "# @package _global_\nmodel: {hidden: [4]}\nepochs: 1\n",
    }.items():
        path = tmp_path / "mine" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    own = ("--config-dir", "mine")
    assert "gelu-ce-4-" in installed("mlp-train", *own, "activ=smooth", "experiment=tiny", cwd=tmp_path)
    swept = ("mlp-train", *own, "--multirun", "experiment=widths")
    assert "4 runs, 4 to train (4 epochs)" in installed(*swept, cwd=tmp_path)
    assert "4 finished (4 of them before)" in installed(*swept, cwd=tmp_path)
    runs = installed("mlp-sweeps", "ls", "--csv", "--columns", "run,activ.approximate", "activ=gelu", cwd=tmp_path)
    assert runs.count(",none") == 3
    installed("mlp-train", "--config-dir", "nowhere", "epochs=1", cwd=tmp_path, status=2)
