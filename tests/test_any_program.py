"""The readers know no program: other metrics, other keys, keys called as columns are, two programs in one tree."""

import ast
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from synthetic import history, make_other, make_report, make_run

import sweeps
from sweeps.cli import main
from sweeps.read import extensions
from sweeps.read.collect import OWN, write
from sweeps.read.summary import identity_columns, judged, metrics
from sweeps.runs.identity import digest
from sweeps.show import payload, report
from sweeps.show.listing import default_columns
from sweeps.show.tables import pivot

FIT, FOREST = "app.train:fit", "forest:grow"
RATES, WIDTHS, SEEDS = (0.1, 0.01), (8, 16), (0, 1)


def fit(out, lr=0.1, width=8, seed=0, **more):
    """A run that is judged by its lowest ``loss``, which is at epoch 3."""
    loss = [3.0 + lr, 2.0 + lr, 1.0 + lr + seed / 10, 1.5 + lr]
    columns = {"loss": loss, "val/perplexity": [math.exp(x) for x in loss], "seconds": [0.5, 0.25, 0.5, 0.75]}
    config = {"lr": lr, "net": {"width": width}, "seed": seed, "tags": ["a", "b"], "amp": True, **more}
    return make_other(out, config, columns, program=FIT, metric="loss", maximize=False)


def forest(out, depth, criterion="gini"):
    return make_other(out, {"depth": depth, "criterion": criterion}, {"f1": [depth / 10]}, program=FOREST, metric="f1")


@pytest.fixture
def out(tmp_path):
    """Two programs, 8 + 3 runs."""
    for lr in RATES:
        for width in WIDTHS:
            for seed in SEEDS:
                fit(tmp_path, lr, width, seed)
    for depth in (1, 2, 3):
        forest(tmp_path, depth)
    return tmp_path


def test_each_run_has_its_own_metrics_and_keys(out):
    found = sweeps.load(out)
    assert found.problems == ()
    assert list(found.epochs.columns) == ["run", "epoch", "loss", "val/perplexity", "seconds", "f1"]
    assert metrics(found.runs) == ["loss", "val/perplexity", "f1"]
    assert identity_columns(found.runs) == ["lr", "config.tags", "amp", "depth", "criterion", "net.width"]
    assert list(found.runs.columns) == [
        "run", "state", "epoch", "target",
        "lr", "seed", "config.tags", "amp", "depth", "criterion", "net.width",
        "loss", "val/perplexity", "f1", "best_epoch", "best_loss", "best_val/perplexity", "best_f1",
        "epoch_seconds", "total_seconds",
        "started", "updated", "host", "worker", "error", "git_commit", "source_sha256", "python", "numpy", "cpu",
        "blas", "threads", "path", "program", "tags", "note",
    ]  # fmt: skip
    run = found.runs.query("lr == 0.01 and `net.width` == 16 and seed == 1").iloc[0]
    assert (run.loss, run.best_loss, run.best_epoch) == pytest.approx((1.51, 1.11, 3))
    assert run["best_val/perplexity"] == pytest.approx(math.exp(1.11))
    assert (run.epoch_seconds, run.total_seconds) == (0.5, 2.0)
    assert (run["config.tags"], run.amp, run.program) == ('["a", "b"]', "true", FIT)
    assert np.isnan(run.f1)
    tree = found.runs[found.runs["depth"] == 2].iloc[0]
    assert (tree.f1, tree.best_f1, tree.best_epoch, tree.program) == (0.2, 0.2, 1, FOREST)
    assert np.isnan([tree.loss, tree.epoch_seconds, tree.total_seconds, tree.lr]).all()
    assert judged(found) == ("loss", False)
    assert judged(sweeps.load(out, f"program={FOREST}")) == ("f1", True)


def test_the_cache_gives_what_the_files_gave(out):
    first, again = sweeps.load(out), sweeps.load(out)
    pd.testing.assert_frame_equal(first.runs, again.runs)
    pd.testing.assert_frame_equal(first.epochs, again.epochs)
    late = make_other(out, {"depth": 4}, {"recall": [0.5, 0.6]}, program=FOREST, metric="recall")
    found = sweeps.load(out)
    assert list(found.epochs["recall"].dropna()) == [0.5, 0.6]
    assert found.runs.set_index("run").loc[late.path.name, "best_epoch"] == 2
    paths = write(found, out)
    pd.testing.assert_frame_equal(pd.read_parquet(paths[0]), found.runs)
    pd.testing.assert_frame_equal(pd.read_parquet(paths[2]), found.epochs)


def test_metrics_of_one_run_may_come_late_or_in_another_order(tmp_path):
    a = make_other(tmp_path, {"x": 1}, {"loss": [1.0, 2.0], "acc": [0.1, 0.2]})
    b = make_other(tmp_path, {"x": 2}, {"acc": [0.3, math.nan], "loss": [3.0, 4.0]}, metric="acc")
    b.metrics.write_text("epoch,acc,loss,late\n1,0.3,3.0,\n2,,4.0,7.0\n")
    found = sweeps.load(tmp_path)
    rows = found.epochs.set_index(["run", "epoch"])
    assert rows.loc[(a.path.name, 2), ["loss", "acc"]].tolist() == [2.0, 0.2]
    assert rows.loc[(b.path.name, 1), ["loss", "acc"]].tolist() == [3.0, 0.3]
    assert rows.loc[(b.path.name, 2), "late"] == 7.0
    run = found.runs.set_index("run").loc[b.path.name]
    assert (run.best_epoch, run.best_acc, run.best_loss) == (1, 0.3, 3.0)
    assert np.isnan(run.best_late)
    assert np.isnan(found.runs.set_index("run").loc[a.path.name, "best_epoch"])  # it judges by nothing


RESERVED = sorted({*OWN, "epochs", "self", "index", "name", "group", "mean", "half", "n", "last", "stopped", "config"})


@pytest.mark.parametrize("key", [*RESERVED, "loss", "best_loss", "seconds", "best_lr", "metric.loss"])
def test_no_key_takes_the_name_of_a_column(out, key):
    value = "../../x" if key != "seconds" else 5
    run = fit(out, 0.5, **{key: value, "config": {key: "inner"}} if key != "config" else {"config": value})
    found = sweeps.load(out).runs
    mine = found[found["lr"] == 0.5].iloc[0]
    assert (mine["run"], mine["state"], mine["epoch"], mine["target"]) == (run.path.name, "finished", 4, 4)
    assert mine["path"] == f"{out}/runs/{run.path.name}"
    assert (mine["best_epoch"], mine["program"], mine["loss"]) == (3, FIT, 2.0)
    assert found.columns.is_unique
    configured = [column for column in identity_columns(found) if mine[column] == value]
    assert configured in ([key], [f"config.{key}"], [f"config.config.{key}"])
    assert found["loss"].notna().sum() == 9
    for words in (["ls"], ["curves"], ["curves", "--by", configured[0]], ["report"], ["watch", "--once"], ["collect"]):
        assert main([*words, "--out", str(out)]) == 0, words


def test_a_foreign_network_cannot_take_another_run_s_place(tmp_path, capsys):
    """A config.yaml with a matching digest and an extra key: the directory's name is the run's name."""
    mine = make_run(tmp_path, seed=1)
    forged = make_run(tmp_path, seed=2)
    identity = {**yaml.safe_load(forged.config.read_text()), "run": f"../../{mine.path.name}", "state": "x", "self": 1}
    name = f"relu-ce-360-{digest(identity)[:10]}"
    forged.config.write_text(yaml.safe_dump(identity))
    forged.path.rename(tmp_path / "runs" / name)
    found = sweeps.load(tmp_path)
    assert sorted(found.runs["run"]) == sorted([mine.path.name, name])
    assert found.runs.set_index("run").loc[name, "config.run"] == f"../../{mine.path.name}"
    assert set(found.epochs["run"]) == set(found.runs["run"])
    assert main(["show", name, "--out", str(tmp_path)]) == 0
    assert "seed: 2" in capsys.readouterr().out


def test_metrics_called_as_columns_are_kept_apart(tmp_path):
    names = ["state", "best_loss", "loss", "path", "best_epoch"]
    make_other(tmp_path, {"lr": 0.1}, {name: [float(i)] for i, name in enumerate(names)}, metric="loss")
    found = sweeps.load(tmp_path)
    run = found.runs.iloc[0]
    assert (run["state"], run["best_epoch"]) == ("finished", 1)
    assert {name: run[name] for name in metrics(found.runs)} == {
        "metric.state": 0, "metric.best_loss": 1, "loss": 2, "metric.path": 3, "metric.best_epoch": 4,
    }  # fmt: skip
    assert list(found.epochs.columns) == ["run", "epoch", *names]


def test_a_key_and_a_metric_of_one_name_are_kept_apart_across_programs(out):
    make_report(out, epochs=3, seeds=1)
    mixed = sweeps.load(out)
    assert set(mixed.runs["loss"].dropna()) == {"ce", "euclidean", "hinge"}  # the networks' key, so the metric yields
    assert mixed.runs["metric.loss"].notna().sum() == 8
    width_8 = replace(mixed, runs=mixed.runs[mixed.runs["net.width"] == 8])
    cell = pivot(width_8, ["lr"], ["net.width"], ["loss"]).rows[0].cells[0]
    assert (cell.metric, cell.mean, cell.n) == ("metric.loss", pytest.approx(1.51), 2)


def test_commands_for_runs_of_another_program(out, capsys):
    def run(*words):
        status = main([*words, "--out", str(out)])
        return status, *capsys.readouterr()

    only = f"program={FIT}"
    status, printed, _ = run("ls", only, "--sort", "best_loss", "--limit", "1")
    assert status == 0
    assert printed.splitlines()[0].split() == [
        "run", "state", "epoch", "target", "lr", "net.width", "seed", "loss", "best_loss", "epoch_seconds",
    ]  # fmt: skip
    assert "program" in default_columns(sweeps.load(out))
    assert "| 8         | 2.0100 ± 0.0000" not in run("tables", "--rows", "net.width", "--cols", "lr", only)[1]
    assert "1.5100 ± 0.0000" in run("tables", "--rows", "net.width", "--cols", "lr", only)[1]
    for words, stem in (
        (["curves", only], "curves-loss-program=app_train_fit-96e6a0"),
        (["curves", "--metric", "val/perplexity", "--by", "lr"], "curves-val_perplexity-by-lr"),
        (["heatmap", "--x", "lr", "--y", "net.width"], "heatmap-best_loss-lr-net_width"),
        (["heatmap", "--x", "lr", "--y", "seed", "--value", "val/perplexity"], "heatmap-val_perplexity-lr-seed"),
    ):
        status, printed, said = run(*words)
        assert (status, said) == (0, "")
        assert printed.splitlines() == [f"{out}/figures/{stem}.{kind}" for kind in ("png", "svg", "pdf")]
    status, _, said = run("figures", f"study={ROOT}/conf/study/report.yaml")
    assert status == 2
    assert "figure=fig1: none of its runs is there; make them: " in said
    assert "mlp-sweeps train study=" in said
    names = sorted(path.name for path in (out / "runs").iterdir())
    status, printed, _ = run("show", names[0])
    assert status == 0
    assert [line.split()[:2] for line in printed.splitlines() if line.startswith("best")] == [["best", "3"]]
    status, printed, _ = run("diff", names[0], names[-1])
    assert status == 0
    assert "val/perplexity" in printed
    assert "f1" in printed
    assert "loss 1." in run("watch", "--once")[1]


def test_the_page_of_another_program_begins_with_its_curves(out):
    found = sweeps.load(out, f"program={FIT}")
    text = report.page(found)
    assert text.count("<figure>") == 0
    assert 'href="#claims"' not in text
    assert "valid accuracy" not in text
    data = json.loads(payload.payload(found))
    assert (data["metric"], data["judged"]) == ("loss", "best_loss")
    assert [metric["key"] for metric in data["metrics"]][:2] == ["loss", "val/perplexity"]
    assert {metric["scale"] for metric in data["metrics"]} == {"linear"}
    columns = {column["name"]: column for column in data["columns"]}
    assert not columns["best_loss"]["high"]
    main_columns = [name for name, column in columns.items() if column["main"]]
    assert main_columns == ["lr", "net.width", "loss", "best_loss", "epoch_seconds"]
    assert [name for name, column in columns.items() if column["kind"] == "key"][:2] == ["lr", "net.width"]


@pytest.mark.parametrize("columns", [{}, {"loss": []}, {"seconds": [1.0]}])
def test_runs_without_any_metric_are_runs(tmp_path, capsys, columns):
    make_other(tmp_path, {}, columns, program=FIT, state="interrupted", target=5)
    found = sweeps.load(tmp_path)
    assert found.problems == ()
    assert len(found.runs) == 1
    for words in (["ls"], ["report"], ["watch", "--once"], ["collect"], ["show", "fit"]):
        assert main([*words, "--out", str(tmp_path)]) == 0
    assert main(["curves", "--out", str(tmp_path)]) == 2
    assert "error: " in capsys.readouterr().err


def test_the_best_epoch_is_by_the_run_s_own_account(tmp_path):
    curve = {"a": [1.0, 3.0, 3.0, math.nan], "b": [2.0, 1.0, 5.0, 0.5]}
    judges = [("a", True), ("a", False), ("b", True), ("b", False), (None, True), ("c", True)]
    for i, (metric, maximize) in enumerate(judges):
        make_other(tmp_path, {"i": i}, curve, metric=metric, maximize=maximize)
    runs = sweeps.load(tmp_path).runs.set_index("i").sort_index()
    assert runs["best_epoch"].tolist()[:4] == [2, 1, 3, 4]
    assert runs["best_b"].tolist()[:4] == [1.0, 2.0, 5.0, 0.5]
    assert runs["best_epoch"].isna().tolist() == [False] * 4 + [True] * 2


def test_a_run_of_release_0_1_goes_by_its_valid_accuracy(tmp_path):
    run = make_run(tmp_path, epochs=4)
    status = json.loads(run.status.read_text())
    for field in ("program", "metric", "maximize"):
        del status[field]
    run.status.write_text(json.dumps(status))
    row = sweeps.load(tmp_path).runs.iloc[0]
    assert row["best_valid_acc"] == max(epoch.valid_acc for epoch in history(4))
    assert pd.isna(row["program"])


def test_a_run_with_too_many_metrics_is_one_line(tmp_path):
    make_other(tmp_path, {"x": 1}, {f"m{i}": [1.0] for i in range(1000)})
    make_other(tmp_path, {"x": 2}, {"loss": [1.0]})
    found = sweeps.load(tmp_path)
    assert len(found.runs) == 1
    assert "metrics.csv: 1001 columns" in found.problems[0]


# ------------------------------------------------------------------------------------------------- without the program


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_sweeps_imports_nothing_of_mlp():
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "sweeps").rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] == "mlp"
    }
    assert found == set()


WITHOUT = """
import importlib, pkgutil, sys
sys.modules["mlp"] = None
import sweeps
for module in pkgutil.walk_packages(sweeps.__path__, "sweeps."):
    if module.name == "sweeps.__main__":
        continue
    importlib.import_module(module.name)
from sweeps.cli import main
sys.exit(main(["ls", "--out", sys.argv[1]]) or main(["collect", "--out", sys.argv[1]]))
"""


def test_all_of_sweeps_works_without_mlp(out):
    make_run(out)
    done = subprocess.run([sys.executable, "-c", WITHOUT, out], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "12 runs (12 finished)" in done.stdout
    assert "optim.lr" in pd.read_parquet(out / "runs.parquet").columns  # the general rule


def test_columns_of_another_rule_are_read_again(tmp_path, monkeypatch):
    make_run(tmp_path)
    assert "lr" in sweeps.load(tmp_path).runs.columns
    rules = {"load": lambda group: (), "names": lambda group: ()}
    for name, rule in rules.items():
        monkeypatch.setattr(extensions, name, rule)
    assert "optim.lr" in sweeps.load(tmp_path).runs.columns
    monkeypatch.undo()
    assert "lr" in sweeps.load(tmp_path).runs.columns


def test_a_rule_that_fails_costs_its_run_and_no_other(out, monkeypatch):
    def rule(identity):
        return {"depth": identity["depth"]} if "criterion" in identity else identity["nothing"]

    monkeypatch.setattr(extensions, "load", lambda group: (rule,))
    found = sweeps.load(out)
    assert len(found.runs) == 3
    assert len(found.problems) == 8
    assert "config.yaml: its columns cannot be made (KeyError: 'nothing')" in found.problems[0]


def test_a_configuration_like_a_network_s_is_not_taken_for_one(tmp_path):
    named = {key: {"name": "x"} for key in ("activ", "loss", "optim", "data")}
    make_other(tmp_path, {"model": {"hidden": 5}, **named}, {"loss": [1.0]}, metric="loss")
    found = sweeps.load(tmp_path)
    assert found.problems == ()
    assert found.runs["model.hidden"].tolist() == [5]


def test_the_entry_points_are_installed():
    assert extensions.names(extensions.COLUMNS) == ("mlp=mlp.columns:columns",)
    assert extensions.names(extensions.COMMANDS) == ("mlp=mlp.commands:add",)
    assert Path(extensions.load(extensions.COLUMNS)[0].__code__.co_filename) == ROOT / "mlp" / "columns.py"
