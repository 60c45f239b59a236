"""Applications with ``@hydra.main`` that know nothing of this package: ``hydra/sweeper=grid hydra/launcher=pool``."""

import json
import os
import signal
import subprocess
import sys

import pytest
import yaml
from test_dask import scheduler, spawn, worker
from test_sweep import runs, wait_for, workers

from sweeps.runs.directory import RunDir

spawn, scheduler = spawn, scheduler  # fixtures

APP = """
import logging, os, sys
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig

log = logging.getLogger(__name__)

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    job = HydraConfig.get()
    log.info("x is %s", cfg.x)
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(f"{cfg.x} {job.job.num} {job.job.id} {job.runtime.output_dir} {os.getcwd()}\\n")
    BODY

if __name__ == "__main__":
    main()
"""
CONFIG = """
x: 1
epochs: 1
name: run-${x}
paths:
  out: ${hydra:runtime.output_dir}
"""


class Application:
    """An application's folder; it writes a line for each call of its task function."""

    def __init__(self, folder):
        self.folder, self.out = folder, folder / "outputs"
        self.log = folder / "calls.txt"
        self.entry = ["app.py"]

    def write(self, files):
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return self

    def body(self, text):
        return self.write({"app.py": APP.replace("BODY", text)})

    def command(self, *words, launcher="pool", sweeper="grid"):
        chosen = [f"hydra/sweeper={sweeper}", f"hydra/launcher={launcher}"]
        return [sys.executable, *self.entry, "--multirun", *chosen, *words]

    @property
    def environment(self):
        return os.environ | {"CALLS": str(self.log)}

    def __call__(self, *words, status=0, **chosen):
        done = subprocess.run(
            self.command(*words, **chosen), capture_output=True, text=True, cwd=self.folder, timeout=120,
            env=self.environment,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def start(self, *words):
        return subprocess.Popen(
            self.command(*words), cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=self.environment,
        )  # fmt: skip

    @property
    def calls(self):
        """x, job.num, job.id, output directory, working directory."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return sorted(line.split() for line in lines)

    @property
    def results(self):
        """Configuration → the metrics of its run, but for the time."""
        found = {}
        for path in runs(self.out).values():
            run = RunDir(path)
            values = yaml.safe_load(run.config.read_text())
            rows = run.read_metrics()
            found[values.get("x")] = {k: v for k, v in rows[-1].metrics.items() if k != "seconds"} if rows else None
        return found


@pytest.fixture
def app(tmp_path):
    return Application(tmp_path).write({"conf/config.yaml": CONFIG}).body("return cfg.x ** 2")


def test_an_unmodified_application_is_swept_and_a_second_call_runs_nothing(app):
    done = app("x=3,1,2,2,1")
    assert done.stderr == ""
    assert "x-" in done.stdout
    assert "3 runs, 3 to train, on 2 workers" in done.stdout
    assert "3 finished; " in done.stdout
    assert app.results == {1: {"result": 1}, 2: {"result": 4}, 3: {"result": 9}}
    calls = app.calls
    assert [(x, num, name) for x, num, name, *_ in calls] == [
        ("1", "1", "app_1"), ("2", "2", "app_2"), ("3", "0", "app_0"),
    ]  # fmt: skip
    for x, _, _, directory, cwd in calls:
        assert cwd == str(app.folder)
        path = runs(app.out)[directory.split("/")[-2]]
        assert directory == f"{path}/job"
        assert f"[__main__][INFO] - x is {x}" in (path / "job" / "app.log").read_text()
        hydra = path / "job" / ".hydra"
        assert yaml.safe_load((hydra / "config.yaml").read_text())["x"] == int(x)
        assert yaml.safe_load((hydra / "overrides.yaml").read_text()) == [f"x={x}"]
        assert yaml.safe_load((hydra / "hydra.yaml").read_text())["hydra"]["mode"] == "MULTIRUN"
        assert yaml.safe_load((path / "config.yaml").read_text())["name"] == f"run-{x}"
    again = app("x=1,2,4")
    assert "3 runs, 2 finished already, 1 to train" in again.stdout
    assert [call[0] for call in app.calls] == ["4"]
    assert not (app.folder / "multirun").exists()


STRUCTURED = """
import os
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
import hydra
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from omegaconf import MISSING, OmegaConf

class Kind(Enum):
    SMALL = 1
    LARGE = 2

@dataclass
class NetConf:
    _target_: str = "__main__.Net"
    width: int = 2

@dataclass
class Config:
    defaults: list[Any] = field(default_factory=lambda: ["_self_", {"net": "plain"}])
    net: Any = MISSING
    x: float = 1.0
    kind: Kind = Kind.SMALL
    doubled: float = "${double:${x}}"

class Net:
    def __init__(self, width):
        self.width = width

class Deep(Net):
    pass

OmegaConf.register_new_resolver("double", lambda value: 2 * value)
store = ConfigStore.instance()
store.store("config", Config)
store.store("plain", NetConf, group="net")
store.store("deep", {"_target_": "__main__.Deep", "width": 8}, group="net")

def helper(net):
    return isinstance(net, Deep)

@hydra.main(version_base=None, config_name="config")
def train(cfg: Config):
    net = instantiate(cfg.net)
    assert type(net).__name__ == ("Deep" if helper(net) else "Net")
    assert isinstance(cfg.kind, Kind), type(cfg.kind)
    return {"loss": cfg.doubled * net.width, "acc": float(cfg.kind is Kind.LARGE), "deep": helper(net)}

train()
"""


def test_structured_configs_classes_and_resolvers_of_the_script_reach_the_workers(app):
    """And it has no ``if __name__ == "__main__"``."""
    app.write({"app.py": STRUCTURED})
    done = app("net=plain,deep", "x=2.5", "kind=SMALL,LARGE")
    assert "4 finished; " in done.stdout
    found = sorted((m["loss"], m["acc"], m["deep"]) for m in map(last, runs(app.out).values()))
    assert found == [(10, 0, 0), (10, 1, 0), (40, 0, 1), (40, 1, 1)]
    assert "Could not find 'net/nett'" in app("net=plain,nett", status=1).stderr  # Hydra's own words and status
    assert app("x=0.5,word", status=2).stderr == (
        "error: x=word: Value 'word' of type 'str' could not be converted to Float (point 2: x=word)\n"
    )


def last(path):
    return RunDir(path).read_metrics()[-1].metrics


def test_a_results_tree_that_cannot_be_written_is_said_on_one_line(app):
    done = app("x=1", "hydra.sweeper.out=/dev/null/out", status=2)
    assert done.stderr.startswith("error: out: /dev/null/out")
    assert len(done.stderr.splitlines()) == 1


def test_an_application_that_is_a_module_of_a_package(app):
    """Its configuration comes from the package, too; it returns nothing."""
    app.write(
        {
            "pkg/__init__.py": "",
            "pkg/parts.py": "def double(x):\n    return 2 * x\n",
            "pkg/conf/config.yaml": "defaults: [_self_, db: small, extra: null]\nx: 1\n",
            "pkg/conf/db/small.yaml": "rows: 1\n",
            "pkg/conf/db/large.yaml": "rows: 9\n",
            "more/conf/db/huge.yaml": "rows: 99\n",
            "more/conf/extra/one.yaml": "value: 1\n",
            "more/conf/extra/two.yaml": "value: 2\n",
        }
    )
    app.write({"pkg/app.py": APP.replace("import hydra\n", "import hydra\nfrom .parts import double\n", 1).replace(
        "BODY", "assert double(cfg.x) == 2 * cfg.x; print(f'rows {cfg.db.rows}\\n', end=''); "
        "print(f'extra {cfg.extra.value}\\n', end='') if 'extra' in cfg else None"
    )})  # fmt: skip
    app.entry = ["-m", "pkg.app"]
    done = app("x=1,2", "db=small,large,huge", f"hydra.searchpath=[file://{app.folder}/more/conf]")
    assert "6 finished; " in done.stdout
    assert {line for line in done.stdout.splitlines() if line.startswith("rows")} == {"rows 1", "rows 9", "rows 99"}
    manifest = json.loads(next(app.out.glob("sweeps/*/manifest.json")).read_text())
    assert manifest["command"][:3] == ["python", "-m", "pkg.app"]
    more = f"hydra.searchpath=[file://{app.folder}/more/conf]"
    assert "6 finished already" in app("x=1,2", "db=large,huge,small", more).stdout
    assert "2 to train" in app("extra=one,two", more).stdout  # a group that the search path alone has
    assert {"extra 1", "extra 2"} <= set(app("extra=one,two", "x=5", more).stdout.splitlines())


def test_an_application_behind_a_console_script(app):
    """Its function goes by reference, so that what its module has at the top need not be sent."""
    script = APP.replace("log = ", "import threading\nLOCK = threading.Lock()\nlog = ").replace(
        "BODY", "with LOCK: return 7"
    )
    app.write({"pkg/__init__.py": "", "pkg/conf/__init__.py": "", "pkg/conf/config.yaml": CONFIG, "pkg/app.py": script})
    app.write({"console.py": "import sys\nfrom pkg.app import main\nsys.exit(main())\n"})
    app.entry = ["console.py"]
    assert "2 finished; " in app("x=1,2").stdout
    app.entry = ["-m", "pkg.app"]
    assert "2 finished already" in app("x=1,2").stdout


def test_a_failure_is_isolated_shown_and_tried_again_by_the_next_call(app):
    app.body("""
    if cfg.x == 2 and not Path(os.environ["CALLS"] + ".mended").exists():
        raise ValueError("two is no good")
    return cfg.x
""")
    done = app("x=1,2,3", status=1)
    assert "ValueError: two is no good" in done.stdout
    assert "2 finished, 1 failed; " in done.stdout
    assert "to continue: python app.py --multirun" in done.stdout
    (failed,) = [path for path in runs(app.out).values() if RunDir(path).read_status().state == "failed"]
    assert f"see {failed}/train.log" in done.stdout
    assert "two is no good" in (failed / "train.log").read_text()
    assert "BODY" not in (failed / "train.log").read_text()
    assert len(app.calls) == 3
    (app.folder / "calls.txt.mended").touch()
    again = app("x=1,2,3")
    assert "3 runs, 2 finished already, 1 to train" in again.stdout
    assert [call[0] for call in app.calls] == ["2"]


def test_a_worker_that_is_killed_is_replaced_and_its_job_tried_again(app):
    app.body("""
    marker = Path(os.environ["CALLS"] + ".killed")
    if cfg.x == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), 9)
    return cfg.x
""")
    done = app("x=1,2,3")
    assert "worker killed by SIGKILL (out of memory?) after epoch 0; trying again from there" in done.stdout
    assert "3 finished; " in done.stdout
    assert [call[0] for call in app.calls] == ["1", "2", "2", "3"]


def test_ctrl_c_ends_it_and_the_same_command_continues(app):
    app.body("import time; time.sleep(0 if cfg.x == 1 or Path(os.environ['CALLS'] + '.quick').exists() else 60)")
    process = app.start("x=1,2,3")
    wait_for(lambda: app.log.exists() and len(app.log.read_text().splitlines()) >= 3)
    started = workers(process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "1 finished, 2 interrupted; " in output
    assert output.splitlines()[-1].startswith("to continue: python app.py --multirun")
    wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in started))
    (app.folder / "calls.txt.quick").touch()
    assert "1 finished already, 2 to train" in app("x=1,2,3").stdout


def test_hydra_s_own_directories_and_chdir_are_honoured(app):
    app.write(
        {
            "conf/config.yaml": CONFIG
            + """
hydra:
  job:
    chdir: true
    name: mine
    env_set: {GREETING: hello}
  sweep:
    dir: my_runs
    subdir: ${hydra.job.num}-${hydra.job.override_dirname}
"""
        }
    ).body("Path('written.txt').write_text(os.environ['GREETING'])")
    app("x=1,2")
    for (x, num, name, directory, cwd), number in zip(app.calls, "01", strict=True):
        assert (num, name) == (number, f"mine_{number}")
        assert directory == cwd == f"{app.folder}/my_runs/{num}-x={x}"
        assert (app.folder / "my_runs" / f"{num}-x={x}" / "written.txt").read_text() == "hello"
        assert (app.folder / "my_runs" / f"{num}-x={x}" / ".hydra" / "config.yaml").exists()
        assert (app.folder / "my_runs" / f"{num}-x={x}" / "mine.log").exists()
    assert len(runs(app.out)) == 2
    again = app("x=1,2")
    assert "2 finished already" in again.stdout
    assert app.calls == []


def test_callbacks_are_called_as_by_hydra(app):
    app.write(
        {
            "noted.py": """
import os
from hydra.experimental.callback import Callback

class Noted(Callback):
    def note(self, word):
        with open(os.environ["CALLS"], "a") as calls:
            calls.write(f"{word}\\n")
    def on_multirun_start(self, config, **_): self.note("multirun-start")
    def on_multirun_end(self, config, **_): self.note("multirun-end")
    def on_job_start(self, config, *, task_function, **_): self.note(f"start-{config.x}-{task_function.__name__}")
    def on_job_end(self, config, job_return, **_): self.note(f"end-{config.x}-{job_return.return_value}")
""",
            "conf/config.yaml": CONFIG + "hydra: {callbacks: {noted: {_target_: noted.Noted}}}\n",
        }
    )
    app("x=1,2")
    words = [line[0] for line in app.calls if len(line) == 1]
    assert words == ["end-1-1", "end-2-4", "multirun-end", "multirun-start", "start-1-main", "start-2-main"]


def test_workers_of_a_dask_cluster_run_it(app, spawn, scheduler):
    """They were started elsewhere, and outlive the sweep: after an edit they run the new code."""
    worker(spawn, scheduler)
    app.folder /= "app"
    app.out = app.folder / "outputs"
    script = STRUCTURED.replace("import os\n", "import os\nfrom pathlib import Path\nfrom parts import FACTOR, again\n")
    script = script.replace("net.width,", "again(net.width) * FACTOR,")
    script = script.replace("    return {", "    Path('here.txt').touch()\n    return {")
    app.write({"app.py": script, "parts.py": "FACTOR = 1\ndef again(x):\n    return x\n"})
    words = (f"hydra.launcher.address={scheduler}", "hydra.sweep.dir=mine", "hydra.sweep.subdir=${net.width}")
    done = app("net=plain,deep", *words, launcher="dask")
    assert done.stderr == ""
    assert "2 finished; " in done.stdout
    assert sorted(last(path)["loss"] for path in runs(app.out).values()) == [4, 16]
    assert (app.folder / "here.txt").exists()
    assert sorted(path.name for path in (app.folder / "mine").iterdir() if path.is_dir()) == ["2", "8"]
    app.write({"parts.py": "FACTOR = 100\ndef again(x):\n    return x + 1\n"})
    done = app("net=plain,deep", *words, "hydra.sweeper.code=retrain", launcher="dask")
    assert "2 of 2 finished runs were made by other code (parts)" in done.stdout
    assert sorted(last(path)["loss"] for path in runs(app.out).values()) == [600, 1800]
    assert "2 finished already" in app("net=plain,deep").stdout


@pytest.mark.heavy
def test_optuna_searches_by_what_it_returns(app):
    app.body("return (cfg.x - 3) ** 2")
    words = ("x=int(interval(0,6))", "hydra.sweeper.metric=result", "hydra.sweeper.trials=8", "hydra.sweeper.name=s")
    done = app(*words, sweeper="optuna")
    assert "8 finished of 8 trials" in done.stdout
    assert len({call[0] for call in app.calls}) == len(runs(app.out))
    assert "0 of them trained now" in app(*words, sweeper="optuna").stdout
    assert "is not logged by the program; it logs result" in app(
        "x=0,1", "hydra.sweeper.metric=loss", sweeper="optuna", status=2
    ).stderr  # fmt: skip


def test_hydra_s_own_sweeper_and_launcher_go_with_ours(app):
    assert "1 finished already, 1 to train" in (app("x=1"), app("x=1,2", launcher="basic"))[1].stdout
    app("x=3,4", sweeper="basic")
    assert {call[0] for call in app.calls} == {"1", "2", "3", "4"}
    assert app.results.keys() >= {1, 3, 4}


# -- what the sweeper is told of the application ----------------------------------------------------------------------


def test_options_say_which_keys_decide_and_where_results_go(app):
    app.write({"conf/config.yaml": CONFIG + "device: cpu\n"}).body("return cfg.x")
    told = ("hydra.sweeper.budget=epochs", "hydra.sweeper.ignore=[device]", "hydra.sweeper.out=elsewhere")
    app("x=1,2", *told)
    app.out = app.folder / "elsewhere"
    assert len(runs(app.out)) == 2
    assert len(app.calls) == 2
    assert "2 finished already" in app("x=1,2", "device=cuda", *told).stdout
    assert app.calls == []
    for option in ("hydra.sweeper.budget=nothing", "hydra.sweeper.code=maybe", "hydra.sweeper.out=''"):
        assert app("x=1,2", option, status=2).stderr.startswith("error: ")


def test_a_key_that_was_added_or_renamed_orphans_nothing(app):
    app("x=1,2")
    app.write({"conf/config.yaml": CONFIG + "dropout: 0.0\n"})
    assert "2 finished already" not in app("x=1,2", "hydra.sweeper.dry_run=true").stdout
    assert "2 finished already" in app("x=1,2", "hydra.sweeper.added={dropout:0.0}").stdout
    app.write({"conf/config.yaml": CONFIG.replace("name:", "label:")})
    assert "2 finished already" in app("x=1,2", "hydra.sweeper.renamed={label:name}").stdout
    assert len(runs(app.out)) == 2


@pytest.mark.parametrize("how", ["warn", "refuse", "ignore", "retrain"])
def test_runs_of_other_code_are_told_of_refused_or_trained_again(app, how):
    app("x=1,2")
    app.calls  # noqa: B018
    app.body("return cfg.x ** 3")
    done = app("x=1,2,3", f"hydra.sweeper.code={how}", status=2 if how == "refuse" else 0)
    said = "2 of 2 finished runs were made by other code (__main__)"
    trained = [call[0] for call in app.calls]
    if how == "warn":
        assert f"warning: {said}" in done.stdout
        assert trained == ["3"]
    elif how == "refuse":
        assert done.stderr.startswith(f"error: hydra.sweeper.code=refuse: {said}")
        assert len(done.stderr.splitlines()) == 1
        assert trained == []
    elif how == "ignore":
        assert "other code" not in done.stdout + done.stderr
        assert trained == ["3"]
    else:
        assert f"{said}; they are set aside and trained again" in done.stdout
        assert app.results[2] == {"result": 8}
        assert len(list((app.out / "replaced").iterdir())) == 2


# -- bad input --------------------------------------------------------------------------------------------------------


def test_a_function_that_cannot_be_sent_is_one_line_before_anything(app):
    app.write({"app.py": APP.replace("log = ", "import threading\nLOCK = threading.Lock()\nlog = ").replace(
        "BODY", "LOCK.acquire()"
    )})  # fmt: skip
    done = app("x=1,2", status=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: function=app:main: cannot be sent to a worker, for it uses LOCK: cannot pickle")
    assert app.calls == []
    assert not (app.out / "runs").exists()


def test_a_result_that_is_no_number_fails_its_run_and_names_it(app):
    app.body("return {'loss': 1.0, 'model': object()} if cfg.x == 1 else cfg.x")
    done = app("x=1,2", status=1)
    assert "metric model=<object object at" in done.stdout
    assert "must be a number" in done.stdout
    assert "1 finished, 1 failed" in done.stdout


def test_every_point_is_composed_and_checked_before_the_first_job(app):
    app.write({"conf/config.yaml": CONFIG + "need: ???\n"}).body("return cfg.need")
    assert "Could not override 'needs'" in app("x=1", "needs=1,2", status=1).stderr
    done = app("x=1,2", "hydra.sweeper.where='y > 1'", status=2)
    assert done.stderr.startswith("error: where=y > 1: there is no key y")
    assert app.calls == []
    assert not app.out.exists()
