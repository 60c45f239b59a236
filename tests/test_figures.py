"""Figures over complete run directories: what is on them, and that nothing is dropped in silence."""

import itertools
import re
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from synthetic import history, make_report, make_run

import sweeps
from mlp.composition import compose
from sweeps.runs.errors import InputError
from sweeps.show import draw, explore, figures, style


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report's 21 configurations, three seeds, 20 epochs."""
    out = tmp_path_factory.mktemp("report")
    make_report(out, epochs=20, seeds=3)
    return sweeps.load(out)


def notes(figure):
    """The text below the panels, its lines joined again."""
    return " ".join(figure.texts[-1].get_text().split())


def lines(axes):
    return [line for line in axes.lines if len(line.get_xdata()) > 1]


def crosses(axes):
    return [line for line in axes.lines if line.get_marker() == "x"]


# -- figures 1–8 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "panels", "curves"),
    [(1, 4, 4), (2, 4, 3), (3, 4, 4), (4, 4, 3), (5, 3, 4), (6, 3, 4), (7, 3, 4), (8, 3, 4)],
)
def test_each_figure_has_its_panels_curves_units_and_sample_size(report, number, panels, curves):
    figure = figures.FIGURES[number](report)
    assert [len(lines(axes)) for axes in figure.axes] == [curves] * panels
    assert "n = 3 seeds" in notes(figure)
    assert "95 % interval" in notes(figure)
    outer = [axes for axes in figure.axes if axes.get_ylabel()]
    assert {axes.get_ylabel() for axes in outer} == {
        "accuracy (%)" if number in (3, 4, 5, 7) else "loss (mean per image)"
    }
    assert figure.axes[-1].get_xlabel() == "epoch"
    assert all(axes.collections for axes in figure.axes)  # the bands


def test_a_line_is_the_mean_over_seeds_and_its_band_the_t_interval(report):
    axes = figures.FIGURES[7](report).axes[0]
    runs = report.runs.query("lr == 0.1")["run"]
    values = report.epochs[report.epochs["run"].isin(runs)].pivot(index="epoch", columns="run", values="valid_acc")
    np.testing.assert_allclose(lines(axes)[0].get_ydata(), values.mean(axis=1))
    band = axes.collections[0].get_paths()[0].vertices
    third = band[band[:, 0] == 3][:, 1]
    half = 4.302653 * values.loc[3].std() / np.sqrt(3)  # Student's t, 2 degrees of freedom, from a table
    np.testing.assert_allclose([third.min(), third.max()], values.loc[3].mean() + half * np.array([-1, 1]), rtol=1e-5)


def test_a_color_means_the_same_in_every_figure(report):
    meanings = {}
    for number, draw_figure in figures.FIGURES.items():
        figure = draw_figure(report)
        for legend in [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]:
            for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
                label = text.get_text().removesuffix(" *")
                key = label if number <= 4 else (legend.get_title().get_text(), label)
                meanings.setdefault(key, set()).add((handle.get_color(), handle.get_marker()))
    assert {key: len(found) for key, found in meanings.items()} == dict.fromkeys(meanings, 1)
    words = [look for key, found in meanings.items() if isinstance(key, str) for look in found]
    assert len(words) == len(set(words)) == 7


def test_numbers_take_a_ramp_that_darkens_and_stays_visible_on_white():
    def luminance(color):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    shades = [luminance(look.color) for look in style.styles("lr", (0.0001, 0.001, 0.01, 0.1))]
    assert shades == sorted(shades, reverse=True)
    assert 1.05 / (shades[0] + 0.05) > 1.9
    assert min(a / b for a, b in itertools.pairwise([shade + 0.05 for shade in shades])) > 1.5


@pytest.mark.parametrize("count", [2, 7, 8, 12])
def test_styles_differ_for_any_values(count):
    found = style.styles("anything", [f"value {i}" for i in range(count)])
    assert len(set(found)) == count


def test_legends_cover_neither_axes_nor_notes(report, tmp_path):
    make_run(tmp_path, lr=3.0)
    make_run(tmp_path, lr=50.0, rows=[], state="diverged", error="the loss became nan")
    drawn = [figures.FIGURES[number](report) for number in (1, 2, 5)]
    drawn += [figures.curves(sweeps.load(tmp_path), by="lr"), figures.curves(report, by="activ,model")]
    drawn += [figures.curves(report, by="lr"), figures.curves(report)]
    for figure in drawn:
        figure.draw_without_rendering()
        legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
        assert legends
        for legend, other in itertools.product(legends, [*figure.axes, *figure.texts]):
            assert not legend.get_window_extent().overlaps(other.get_window_extent())
        page = figure.bbox
        for artist in (*legends, *figure.texts):
            box = artist.get_window_extent()
            assert box.x0 >= page.x0
            assert box.x1 <= page.x1
            assert box.y0 >= page.y0


def test_losses_of_different_kinds_are_said_to_differ(report):
    assert "differ in kind" in notes(figures.FIGURES[2](report))
    assert "differ in kind" not in notes(figures.FIGURES[1](report))


def test_a_diverged_run_is_marked_where_it_stopped_and_named(tmp_path):
    make_report(tmp_path, epochs=6, seeds=1)
    wild = history(4, seed=1)
    wild[-1] = wild[-1]._replace(train_loss=1e9)
    make_run(tmp_path, lr=0.1, seed=1, rows=wild, target=6, state="diverged", error="the loss became nan")
    make_run(tmp_path, lr=0.1, seed=2, rows=[], target=6, state="diverged", error="the loss became inf")
    figure = figures.FIGURES[6](sweeps.load(tmp_path))
    top = figure.axes[0].get_ylim()[1]
    assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses(figure.axes[0])} == {(4, top), (1, top)}
    assert top < 10  # the others stay readable
    assert not crosses(figure.axes[1])
    assert "diverged" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "lr 0.1 diverged in epoch 1, 5 (2 of 3 runs; the line goes on with the others)" in notes(figure)


def test_a_sweep_in_which_everything_diverged_is_a_figure_of_crosses(tmp_path):
    make_run(tmp_path, lr=0.1, rows=[], target=6, state="diverged", error="the loss became nan")
    for number in (5, 6, 7, 8):
        assert len(crosses(figures.FIGURES[number](sweeps.load(tmp_path)).axes[0])) == 1


def test_missing_and_unfinished_runs_are_said_with_the_command_that_makes_them(tmp_path):
    make_run(tmp_path, epochs=5)
    make_run(tmp_path, activ={"name": "tanh"}, epochs=3, target=5, state="interrupted")
    figure = figures.FIGURES[3](sweeps.load(tmp_path))
    said = notes(figure)
    assert "n = 1 seed: no interval" in said
    assert "Tanh, 1 hidden layer at 3/5" in said
    commands = re.findall(r"mlp\.train --multirun ([^ ]+=[^ ]+(?: [^ ]+=[^ ]+)*)", said)
    assert commands == ["activ=gelu,sigmoid", "model=mlp2 activ=relu,gelu,tanh,sigmoid"]
    assert [text.get_text() for text in figure.axes[2].texts] == ["no runs"]


def test_the_commands_that_a_figure_gives_compose(tmp_path):
    make_run(tmp_path)
    for number in figures.FIGURES:
        said = figures.FIGURES[number](sweeps.load(tmp_path)).texts[-1].get_text().replace("\n", " ")
        for command in re.findall(r"--multirun ((?:[a-z]+=\S+ ?)+)", said):
            words = [f"{word.split('=')[0]}={word.split('=')[1].split(',')[0]}" for word in command.split()]
            assert compose(*words).epochs == 100


def test_nothing_at_all_is_an_input_error(tmp_path):
    make_run(tmp_path, bsz=7)
    for number in figures.FIGURES:
        with pytest.raises(InputError, match=r"figure=\d: none of its runs.*--multirun"):
            figures.FIGURES[number](sweeps.load(tmp_path))


@pytest.mark.parametrize("epochs", [1, 3])
def test_few_epochs_show_every_point(tmp_path, epochs):
    make_report(tmp_path, epochs=epochs, seeds=1)
    axes = figures.FIGURES[5](sweeps.load(tmp_path)).axes[0]
    assert {len(line.get_markevery()) for line in axes.lines} == {epochs}
    assert list(axes.get_xticks()) == list(range(1, epochs + 1))


def test_flawless_accuracy_has_a_place_on_the_axis(tmp_path):
    make_run(tmp_path, rows=[row._replace(train_acc=100.0) for row in history(5)])
    axes = figures.FIGURES[5](sweeps.load(tmp_path)).axes[0]
    assert np.isfinite(axes.transData.transform([(1, 100.0)])).all()


# -- any other keys --------------------------------------------------------------------------------------------------


def test_curves_by_one_key_say_what_they_pool(report):
    figure = figures.curves(report, metric="train_loss", by="lr")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0.0001", "0.001", "0.01", "0.1"]
    assert "Each curve pools runs that differ in activ, loss, model, wd, mo." in notes(figure)


def test_curves_by_two_keys_pool_seeds_alone(tmp_path):
    for lr, wd, seed in itertools.product((0.1, 0.01), (0.0, 0.1), (0, 1)):
        make_run(tmp_path, lr=lr, wd=wd, seed=seed)
    figure = figures.curves(sweeps.load(tmp_path), by=["lr", "wd"])
    assert len(lines(figure.axes[0])) == 4
    assert "pools" not in notes(figure)


def test_more_curves_than_colors_are_summed_up(report):
    figure = figures.curves(report)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == explore.NAMED + 3
    assert "21 curves of 63 runs." in notes(figure)


@pytest.mark.parametrize("wrong", [{"metric": "valid_ac"}, {"by": "lrr"}, {"by": "valid_acc"}])
def test_curves_refuse_what_is_no_metric_or_key(report, wrong):
    with pytest.raises(InputError, match=next(iter(wrong.values()))):
        figures.curves(report, **wrong)


def test_a_heatmap_cell_is_its_runs_mean_and_counts_the_diverged(tmp_path):
    for lr, wd, seed in itertools.product((0.1, 0.01), (0.0, 0.1), (0, 1)):
        if (lr, wd) != (0.1, 0.1):
            make_run(tmp_path, lr=lr, wd=wd, seed=seed)
    make_run(tmp_path, lr=0.1, wd=0.0, seed=2, state="diverged")
    c = sweeps.load(tmp_path)
    figure = figures.heatmap(c, x="lr", y="wd", value="valid_acc")
    texts = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    expected = c.runs.query("lr == 0.01 and wd == 0.1")["valid_acc"].mean()
    assert texts[0, 1] == f"{expected:.4g}"
    assert texts[1, 0].endswith("\n×1")
    assert (1, 1) not in texts
    assert "2–3 runs a cell" in notes(figure)


@pytest.mark.parametrize("wrong", [{"x": "lrr"}, {"y": "lr"}, {"value": "host"}, {"value": "valid_ac"}])
def test_a_heatmap_refuses_what_it_cannot_draw(report, wrong):
    with pytest.raises(InputError, match=next(iter(wrong.values()))):
        figures.heatmap(report, **{"x": "lr", "y": "wd"} | wrong)


# -- files -----------------------------------------------------------------------------------------------------------


def test_the_same_data_give_the_same_bytes_in_another_process(report, tmp_path):
    script = (
        "import sys, sweeps; from pathlib import Path; from sweeps.show import figures\n"
        "figures.save(figures.FIGURES[6](sweeps.load(sys.argv[1])), Path(sys.argv[2]) / 'fig')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", script, report.out, tmp_path / name], check=True, timeout=120)
    for suffix in draw.FORMATS:
        assert (tmp_path / "a" / f"fig.{suffix}").read_bytes() == (tmp_path / "b" / f"fig.{suffix}").read_bytes()


def test_all_three_formats_are_written_and_nothing_else(report, tmp_path):
    paths = figures.save(figures.FIGURES[1](report), tmp_path / "new" / "fig1")
    assert sorted(tmp_path.rglob("*.*")) == sorted(paths)
    starts = {path.suffix: path.read_bytes()[:5] for path in paths}
    assert starts == {".png": b"\x89PNG\r", ".svg": b"<?xml", ".pdf": b"%PDF-"}


def test_matplotlib_is_left_as_it_was(report, tmp_path):
    before = mpl.rcParams.copy()
    figures.save(figures.FIGURES[5](report), tmp_path / "fig")
    figures.heatmap(report, x="lr", y="wd")
    assert mpl.rcParams.copy() == before


def test_a_dollar_or_a_novel_in_a_configuration_is_only_text(report):
    runs = report.runs.assign(**{"optim.note": ["$\\frac{" + "x" * 500] * 30 + ["$"] * 33})
    figure = figures.curves(type(report)(runs, report.epochs, ()), by="optim.note")
    assert draw.render(figure, "svg").startswith(b"<?xml")
    assert max(len(text.get_text()) for text in figure.legends[0].get_texts()) <= 40
