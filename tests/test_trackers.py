"""Trackers record a run and cannot harm it; heavy tests read back with each library's own reader."""

import contextlib
import importlib
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from synthetic import make_run
from test_session import arrays, measured, start

from mlp.composition import CONF, compose
from mlp.epochs import Epoch
from mlp.training import train
from sweeps.cli import main
from sweeps.runs import trackers
from sweeps.runs.directory import RunDir
from sweeps.runs.errors import InputError

METRICS = Epoch._fields[1:]


# ------------------------------------------------------------------------------- without any extra: the run is safe


class Broken:
    """Records what it is told, and fails at one call; the only stand-in here, for what a library may do at worst."""

    told: list[tuple[str, object]]

    def __init__(self, out, clock, *, at, how):
        self._at, self._how = at, how
        Broken.told = []
        self._tell("build", None)

    def _tell(self, call, what):
        Broken.told.append((call, what))
        if call == self._at:
            self._how()

    def begin(self, run_id, params, history):
        self._tell("begin", (run_id, params["optim.lr"], len(history)))

    def epoch(self, row):
        self._tell("epoch", row.epoch)

    def end(self, state):
        self._tell("end", state)


@pytest.fixture
def broken(monkeypatch):
    """``broken(at, how)``: from now on every run is watched by that tracker."""

    def install(at, how):
        watch = trackers.tracking
        entry = trackers.entry(lambda out, clock: Broken(out, clock, at=at, how=how))
        monkeypatch.setitem(trackers.TRACKERS, "broken", entry)
        monkeypatch.setattr("sweeps.runs.session.tracking", lambda name, out, options: watch("broken", out, {}))

    return install


def _raises():
    raise ValueError("no such thing\nand more")


def _exits():
    sys.exit("a library that ends the process")


def test_a_tracker_is_told_of_everything_once(small, broken):
    broken("never", _raises)
    result = train(compose(*small, "epochs=2"))
    assert Broken.told == [
        ("build", None), ("begin", (result.run_id, 0.01, 0)), ("epoch", 1), ("epoch", 2), ("end", "finished"),
    ]  # fmt: skip
    train(compose(*small))
    assert Broken.told[1:] == [("begin", (result.run_id, 0.01, 2)), ("epoch", 3), ("epoch", 4), ("end", "finished")]
    assert result.warning is None


@pytest.mark.parametrize("how", [_raises, _exits])
@pytest.mark.parametrize("at", ["build", "begin", "epoch", "end"])
def test_a_failing_tracker_is_one_warning_and_the_run_is_the_same(small, broken, tmp_path, caplog, at, how):
    alone = train(compose(*small, f"out={tmp_path / 'alone'}"))
    broken(at, how)
    result = train(compose(*small))
    assert result.state == "finished"
    assert (measured(result.path), arrays(result.path)) == (measured(alone.path), arrays(alone.path))
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [result.warning]
    assert said[0].startswith("tracker broken: ValueError: no such thing;" if how is _raises else "tracker broken: Sys")
    assert RunDir(result.path).log.read_text().count("WARNING") == 1
    assert [call for call, _ in Broken.told].count(at) == 1  # and nothing after its error
    assert Broken.told[-1][0] == at


@pytest.mark.parametrize("at", ["build", "epoch", "end"])
def test_a_hanging_tracker_is_waited_for_only_so_long(small, broken, monkeypatch, at):
    monkeypatch.setattr(trackers, "_HEAD_START", 0.2)
    monkeypatch.setattr(trackers, "_PATIENCE", 0.5)
    release = threading.Event()
    broken(at, release.wait)
    result = train(compose(*small))
    assert result.state == "finished"
    assert result.warning == "tracker broken: no answer for 0.5 s; the run goes on without it"
    release.set()


def test_a_slow_tracker_that_makes_headway_is_waited_for(small, broken, monkeypatch):
    monkeypatch.setattr(trackers, "_PATIENCE", 1.0)
    broken("never", _raises)
    tell = Broken._tell

    def slowly(self, call, what):
        time.sleep(0.3)
        tell(self, call, what)

    monkeypatch.setattr(Broken, "_tell", slowly)
    assert train(compose(*small, "epochs=6")).warning is None
    assert Broken.told[-1] == ("end", "finished")


@pytest.mark.parametrize(("words", "end"), [(["lr=3e4", "loss=euclidean"], "diverged"), ([], "interrupted")])
def test_a_tracker_hears_how_it_ended(small, broken, words, end):
    from sweeps.runs.errors import Interrupted

    def stop(row):
        if end == "interrupted":
            raise Interrupted(signal.SIGTERM)

    broken("never", _raises)
    assert train(compose(*small, *words, "epochs=50"), on_epoch=stop).state == end
    assert Broken.told[-1] == ("end", end)


def test_the_yaml_files_are_the_registry_and_no_part_of_the_identity():
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (CONF / "tracker").glob("*.yaml")}
    assert {name: set(content) for name, content in files.items()} == {
        name: {"name", *entry.options} for name, entry in trackers.TRACKERS.items()
    }
    installed = [name for name in files if name == "none" or importlib.util.find_spec(name)]
    assert {compose(f"tracker={name}").run_id for name in installed} == {compose().run_id}


def test_no_tracker_s_library_is_imported_unless_it_is_used():
    code = "import sys, sweeps.runs.session; print([m for m in ('mlflow', 'tensorboard', 'wandb') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_missing_extra_is_one_line_and_no_directory(command, small, tmp_path):
    """Python runs without its site-packages but for what the default installation has."""
    (tmp_path / "wandb").mkdir()  # what wandb leaves behind is not wandb
    code = (
        "import sys, importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda name, package=None: None if name == 'mlflow' else find(name, package);"
        "from mlp.train import main; sys.argv = ['mlp-train', *sys.argv[1:]]; main()"
    )
    words = [*small, "tracker=mlflow"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: tracker=mlflow: is not installed; pip install 'mlp-sweeps[mlflow]'\n"
    assert not (tmp_path / "out").exists()


def test_a_directory_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    with pytest.raises(InputError, match="is not installed"):
        trackers.require("mlflow")


# ------------------------------------------------------------------------------------ with the extras: what is recorded


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real MLflow server over SQLite; gives its address."""
    pytest.importorskip("mlflow")
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    words = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--workers", "1", "--artifacts-destination", str(folder / "artifacts")]
    patient = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "100", "MLFLOW_DISABLE_TELEMETRY": "true"}  # on a busy machine
    os.environ |= patient
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words],
            cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for name in patient:
            del os.environ[name]


def recorded(uri, experiment):
    """What MLflow's own client reads: run name → (status, tags, params, {metric: [(step, value), …]})."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = {}
    for run in client.search_runs([client.get_experiment_by_name(experiment).experiment_id]):
        points = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        series = {name: [(point.step, point.value) for point in history] for name, history in points.items()}
        assert run.info.run_name not in found, "recorded twice"
        found[run.info.run_name] = run.info.status, run.data.tags, run.data.params, series
    return found


def assert_recorded(run, series):
    """Each epoch once, with the numbers of metrics.csv."""
    rows = RunDir(run).read_metrics()
    assert set(series) == set(METRICS)
    for name in METRICS:
        assert series[name] == [(row.epoch, pytest.approx(getattr(row, name), rel=1e-6)) for row in rows]


@pytest.mark.heavy
def test_mlflow_has_the_run_and_what_continues_it(command, small, server):
    words = [*small, "tracker=mlflow", f"tracker.uri={server}", "tracker.experiment=one", "epochs=2"]
    first = command(*words)
    assert (first.returncode, first.stderr) == (0, "")
    assert command(*words, "epochs=5").returncode == 0
    config = compose(*small)
    ((name, (status, tags, params, series)),) = recorded(server, "one").items()
    assert name == tags["mlp.run_id"] == config.run_id
    assert (status, tags["mlp.state"]) == ("FINISHED", "finished")
    assert (params["optim.lr"], params["activ.name"], params["model.hidden"]) == ("0.01", "relu", "[16]")
    assert_recorded(config.out / "runs" / config.run_id, series)


@pytest.mark.heavy
def test_mlflow_has_each_epoch_once_after_kill_9(small, server, tmp_path):
    base = [*small[:-2], "bsz=5", "checkpoint_every=4", f"out={tmp_path / 'out'}"]
    words = [*base, "tracker=mlflow", f"tracker.uri={server}", "tracker.experiment=killed"]
    for _ in range(2):
        process = start(*words, "epochs=10000")
        for _ in range(7):  # past a checkpoint, so that epochs are repeated
            process.stdout.readline()
        process.kill()
        process.communicate()
    config = compose(*base)
    run = config.out / "runs" / config.run_id
    ((_, (status, *_)),) = recorded(server, "killed").items()
    assert status == "RUNNING"
    result = train(compose(*words, f"epochs={len(RunDir(run).read_metrics()) + 3}"))
    assert result.warning is None
    ((_, (status, _, _, series)),) = recorded(server, "killed").items()
    assert status == "FINISHED"
    for name in METRICS[:6]:  # the clocks of repeated epochs differ
        assert series[name] == [(row.epoch, pytest.approx(getattr(row, name))) for row in result.history]


@pytest.mark.heavy
@pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # MLflow's, when it reads SQLite
def test_mlflow_watches_a_sweep_s_workers_over_its_own_sqlite(command, small, tmp_path):
    pytest.importorskip("mlflow")
    done = command("--multirun", *small, "tracker=mlflow", "seed=0,1,2,3", "hydra.launcher.workers=2")
    assert done.returncode == 0, done.stderr
    assert "tracker" not in done.stdout + done.stderr
    out = tmp_path / "out"
    found = recorded(f"sqlite:///{out}/mlflow.db", "mlp-sweeps")
    assert set(found) == {path.name for path in (out / "runs").iterdir()}
    for name, (_, _, _, series) in found.items():
        assert_recorded(out / "runs" / name, series)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}  # nothing beside the results tree


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_a_dead_mlflow_server_does_not_harm_the_run(command, small, tmp_path, kind):
    pytest.importorskip("mlflow")
    alone = train(compose(*small, f"out={tmp_path / 'alone'}"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "silent":
            listener.listen()  # takes connections and never answers
        uri = f"http://127.0.0.1:{listener.getsockname()[1]}"
        done = command(*small, "tracker=mlflow", f"tracker.uri={uri}")
    assert done.returncode == 0
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("WARNING: tracker mlflow: ")
    run = tmp_path / "out" / "runs" / alone.run_id
    assert (measured(run), arrays(run)) == (measured(alone.path), arrays(alone.path))
    assert (run / "train.log").read_text().count("WARNING") == 1


@pytest.mark.heavy
def test_a_sweep_says_once_that_its_tracker_fails(command, small):
    pytest.importorskip("mlflow")
    words = ["tracker=mlflow", f"tracker.uri=http://127.0.0.1:{free_port()}", "seed=0,1,2", "hydra.launcher.workers=1"]
    done = command("--multirun", *small, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tracker mlflow: ") == 1
    assert "the tracker failed 3 runs; their train.log has the reasons" in done.stdout
    assert "3 finished" in done.stdout


@pytest.mark.heavy
def test_export_to_mlflow_and_again(small, server, tmp_path, capsys):
    out = tmp_path / "out"
    results = [train(compose(*small, f"seed={seed}")) for seed in range(3)]
    words = ["export", "--to", "mlflow", "--uri", server, "--experiment", "old", "--out", str(out)]
    assert main([*words, "seed<=1"]) == 0
    assert capsys.readouterr().out == "2 runs exported to mlflow\n"
    assert main(words) == main(words) == 0
    found = recorded(server, "old")
    assert set(found) == {result.run_id for result in results}
    for result in results:
        status, tags, _, series = found[result.run_id]
        assert (status, tags["mlp.state"]) == ("FINISHED", "finished")
        assert_recorded(result.path, series)
    closed = f"http://127.0.0.1:{free_port()}"
    assert main([*words, "--uri", closed]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: mlflow: ")
    assert said.endswith("0 of 3 runs were exported\n")


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    series = {name: [(point.step, point.value) for point in found.Scalars(name)] for name in found.Tags()["scalars"]}
    states = [point.tensor_proto.string_val[0].decode() for point in found.Tensors("state")]
    return series, states


@pytest.mark.heavy
def test_tensorboard_reads_the_run_and_what_continues_it_even_after_kill_9(small, tmp_path):
    pytest.importorskip("tensorboard")
    base = [*small[:-2], "bsz=5", "checkpoint_every=4", f"out={tmp_path / 'out'}"]
    words = [*base, "tracker=tensorboard"]
    process = start(*words, "epochs=10000")
    for _ in range(7):
        process.stdout.readline()
    process.kill()
    process.communicate()
    config = compose(*base)
    folder = tmp_path / "out" / "tensorboard" / config.run_id
    (torn,) = folder.iterdir()
    torn.write_bytes(torn.read_bytes()[:-5])
    epochs = len(RunDir(config.out / "runs" / config.run_id).read_metrics()) + 3
    result = train(compose(*words, f"epochs={epochs}"))
    assert result.warning is None
    series, states = events(folder)
    assert states == ["finished"]
    for name in METRICS[:6]:
        assert series[name] == [(row.epoch, pytest.approx(getattr(row, name))) for row in result.history]


@pytest.mark.heavy
def test_a_file_that_can_grow_no_more_is_one_warning(command, small, tmp_path):
    """The system refuses to write beyond 20 kB, which only the event file reaches."""
    pytest.importorskip("tensorboard")
    words = [*small, "epochs=120"]
    alone = train(compose(*words, f"out={tmp_path / 'alone'}"))
    limited = subprocess.run(
        [sys.executable, "-m", "mlp.train", *words, "tracker=tensorboard"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        capture_output=True, text=True,
    )  # fmt: skip
    assert limited.returncode == 0, limited.stderr
    (warning,) = limited.stderr.splitlines()
    assert warning == "WARNING: tracker tensorboard: OSError: [Errno 27] File too large; the run goes on without it"
    run = tmp_path / "out" / "runs" / alone.run_id
    assert (measured(run), arrays(run)) == (measured(alone.path), arrays(alone.path))


@pytest.mark.heavy
def test_tensorboard_reads_the_configuration(small, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    result = train(compose(*small, "tracker=tensorboard", f"tracker.dir={tmp_path / 'logs'}"))
    found = EventAccumulator(str(tmp_path / "logs" / result.run_id)).Reload()
    content = found.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    hparams = metadata.parse_session_start_info_plugin_data(content).hparams
    assert hparams["optim.lr"].number_value == 0.01
    assert hparams["activ.name"].string_value == "relu"


@pytest.mark.heavy
def test_export_to_tensorboard_and_again(small, tmp_path):
    pytest.importorskip("tensorboard")
    results = [train(compose(*small, f"seed={seed}")) for seed in range(2)]
    logs = tmp_path / "logs"
    words = ["export", "--to", "tensorboard", "--dir", str(logs), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    files = sorted(logs.rglob("events*"))
    assert main(words) == 0
    assert sorted(logs.rglob("events*")) == files  # nothing new, no file
    train(compose(*small, "epochs=6"))
    assert main(words) == 0
    for result in results:
        series, states = events(logs / result.run_id)
        assert set(states) == {"finished"}
        assert_recorded(result.path, series)


@pytest.mark.heavy
def test_export_leaves_out_what_is_being_trained(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    run = make_run(tmp_path, state="running")
    with run.lock():
        assert main(["export", "--to", "tensorboard", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out == "0 runs exported to tensorboard\n"
    assert printed.err == f"note: {run.path.name} is being trained; export it when it has ended\n"


@contextlib.contextmanager
def ear():
    """A port of this machine, and the list of who connected to it."""
    callers = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.settimeout(1)
                    with contextlib.suppress(OSError):
                        callers.append(connection.recv(200))
                    connection.close()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", callers
        listener.shutdown(socket.SHUT_RDWR)


def wandb_history(file):
    """The history of an offline run: LevelDB's log format (7 bytes before it), with W&B's own records in it."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = file.read_bytes()[7:]
    assert len(content) < 2**15  # one block: no record is divided
    while content:
        length, kind = int.from_bytes(content[4:6], "little"), content[6]
        assert kind == 1
        record = Record.FromString(content[7 : 7 + length])
        if record.HasField("history"):
            yield record.history.item
        content = content[7 + length :]


def assert_in_wandb(file, run):
    rows = [{item.nested_key[0]: json.loads(item.value_json) for item in history} for history in wandb_history(file)]
    for row, expected in zip(rows, RunDir(run).read_metrics(), strict=True):
        assert row["_step"] == expected.epoch
        assert {name: row[name] for name in METRICS} == {name: expected[name] for name in METRICS}


@pytest.mark.heavy
def test_wandb_offline_leaves_its_directory_and_uses_no_network(command, small, tmp_path):
    pytest.importorskip("wandb")
    with ear() as (address, callers):
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"), address)
        env = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://wandb.example", **proxies, "NO_PROXY": ""}
        done = command(*small, "tracker=wandb", **env)
        assert (done.returncode, done.stderr) == (0, "")
        assert callers == []
        online = command(*small, "tracker=wandb", "tracker.mode=online", "seed=1", **env)
        assert callers, "the ear is deaf"
    assert online.returncode == 0  # a server that hangs up is a warning
    assert "WARNING: tracker wandb: " in online.stderr
    run_id = compose(*small).run_id
    (folder,) = (tmp_path / "out" / "wandb").glob(f"offline-run-*-{run_id}")
    (file,) = folder.glob("*.wandb")
    assert_in_wandb(file, tmp_path / "out" / "runs" / run_id)
    again = command(*small, "tracker=wandb", "epochs=6", **env)  # continues the run, and has it whole
    assert (again.returncode, again.stderr) == (0, "")
    (newer,) = set((tmp_path / "out" / "wandb").glob(f"offline-run-*-{run_id}/*.wandb")) - {file}
    assert_in_wandb(newer, tmp_path / "out" / "runs" / run_id)


@pytest.mark.heavy
def test_every_tracker_composes_with_a_relative_directory_of_its_own(command, small, tmp_path):
    """In a sweep it is made absolute at the start, as every other path."""
    pytest.importorskip("tensorboard")
    words = ["tracker=tensorboard", "tracker.dir=logs", "seed=0,1", "hydra.launcher.workers=1"]
    assert command("--multirun", *small, *words).returncode == 0
    names = {path.name for path in Path(tmp_path, "logs").iterdir()}
    assert names == {path.name for path in Path(tmp_path, "out", "runs").iterdir()}
