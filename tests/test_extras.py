"""Without the library that an extra brings: one line that says which, before any job."""

import tomllib

import pytest
from conftest import ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize(
    ("module", "extra", "words"),
    [
        ("ray", "ray", ["hydra/launcher=ray"]),
        ("distributed", "dask", ["hydra/launcher=dask", "hydra.launcher.address=127.0.0.1:1"]),
        ("dask_jobqueue", "dask", ["hydra/launcher=dask", "hydra.launcher.cluster=slurm"]),
        ("optuna", "search", ["hydra/sweeper=optuna", "lr=interval(0.1,1)", "data.holdout=100"]),
    ],
)
def test_a_missing_extra_is_one_line(command, small, tmp_path, module, extra, words):
    assert extra in EXTRAS
    (tmp_path / f"{module}.py").write_text(f'raise ModuleNotFoundError("No module named {module!r}")\n')
    done = command("--multirun", *small, *words, PYTHONPATH=tmp_path)
    assert done.returncode == 2
    field, _, value = words[0].partition("=")
    assert done.stderr == f"error: {field}={value}: No module named {module!r}; pip install 'mlp-sweeps[{extra}]'\n"
    assert not list(tmp_path.glob("out/runs/*"))
