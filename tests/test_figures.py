"""Figures over complete run directories: what is on them, and that nothing is dropped in silence."""

import itertools
import re
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from conftest import ROOT
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic import history, make_other, make_report, make_run

import sweeps
from sweeps.runs.errors import InputError
from sweeps.show import draw, explore, figures, style
from sweeps.show.dark import PAGE, luminance, on_dark
from sweeps.show.dark import dark as in_dark
from sweeps.study import file, reference

STUDY = file.read(str(ROOT / "conf" / "study" / "report.yaml"))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report's 21 configurations, three seeds, 20 epochs."""
    out = tmp_path_factory.mktemp("report")
    make_report(out, epochs=20, seeds=3)
    return sweeps.load(out)


def notes(figure):
    """The text below the panels, its lines joined again."""
    return " ".join(figure.texts[-1].get_text().split())


def figure_of(name, collection, **options):
    return figures.figure(STUDY, STUDY.figures[name], collection, **options)


def flat(text):
    return " ".join(text.split())


def is_reference(line):
    return line.get_linewidth() == draw.REFERENCE_LINE["linewidth"]


def lines(axes):
    return [line for line in axes.lines if len(line.get_xdata()) > 1 and not is_reference(line)]


def crosses(axes):
    return [line for line in axes.lines if line.get_marker() == "x"]


# -- figures 1–8 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "panels", "curves"),
    [(1, 4, 4), (2, 4, 3), (3, 4, 4), (4, 4, 3), (5, 3, 4), (6, 3, 4), (7, 3, 4), (8, 3, 4)],
)
def test_each_figure_has_its_panels_curves_units_and_sample_size(report, number, panels, curves):
    figure = figure_of(f"fig{number}", report)
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
    axes = figure_of("fig7", report).axes[0]
    runs = report.runs.query("lr == 0.1")["run"]
    values = report.epochs[report.epochs["run"].isin(runs)].pivot(index="epoch", columns="run", values="valid_acc")
    np.testing.assert_allclose(lines(axes)[0].get_ydata(), values.mean(axis=1))
    band = axes.collections[0].get_paths()[0].vertices
    third = band[band[:, 0] == 3][:, 1]
    half = 4.302653 * values.loc[3].std() / np.sqrt(3)  # Student's t, 2 degrees of freedom, from a table
    np.testing.assert_allclose([third.min(), third.max()], values.loc[3].mean() + half * np.array([-1, 1]), rtol=1e-5)


def test_a_color_means_the_same_in_every_figure(report):
    meanings = {}
    for number in range(1, 9):
        figure = figure_of(f"fig{number}", report)
        for legend in [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]:
            for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
                label = text.get_text().removesuffix(" *")
                if label == "report":  # in black, for lines of every colour
                    continue
                key = label if number <= 4 else (legend.get_title().get_text(), label)
                meanings.setdefault(key, set()).add((handle.get_color(), handle.get_marker()))
    assert {key: len(found) for key, found in meanings.items()} == dict.fromkeys(meanings, 1)
    words = [look for key, found in meanings.items() if isinstance(key, str) for look in found]
    assert len(words) == len(set(words)) == 7


def contrast(a, b):
    low, high = sorted(luminance(color) + 0.05 for color in (a, b))
    return high / low


def test_numbers_take_markers_and_a_ramp_that_darkens_and_stays_visible_on_white():
    looks = style.styles((0.1, 0.0001, 0.001, 0.01))
    assert len({look.marker for look in looks}) == 4
    ranked = [looks[i] for i in (1, 2, 3, 0)]
    assert ranked == style.styles((0.0001, 0.001, 0.01, 0.1))  # a value's look does not hang on the order
    contrasts = [contrast(look.color, "white") for look in ranked]
    assert contrasts[0] >= 3
    assert min(b / a for a, b in itertools.pairwise(contrasts)) > 1.5


def test_colors_without_a_meaning_stand_out_too():
    assert min(contrast(look.color, "white") for look in style.styles([f"value {i}" for i in range(7)])) >= 3
    given = [color for axis in STUDY.axes.values() for color, _ in axis.style.values()]
    assert min(contrast(color, "white") for color in given) >= 3


@pytest.mark.parametrize("count", [2, 7, 8, 12])
def test_styles_differ_for_any_values(count):
    found = style.styles([f"value {i}" for i in range(count)])
    assert len(set(found)) == count


def assert_nothing_is_covered_or_clipped(figure):
    figure.draw_without_rendering()
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    assert legends
    for legend, other in itertools.product(legends, [*figure.axes, *figure.texts]):
        assert not legend.get_window_extent().overlaps(other.get_window_extent())
    for a, b in itertools.combinations(legends, 2):
        assert not a.get_window_extent().overlaps(b.get_window_extent())
    titles = [axes._left_title for axes in figure.axes]
    tops = [text for text in figure.texts if text.get_position()[1] > 0.5]
    for title, axes in itertools.product([*titles, *tops], figure.axes):
        assert not title.get_window_extent().overlaps(axes.get_window_extent())
    for a, b in itertools.combinations([*titles, *tops], 2):
        assert not a.get_window_extent().overlaps(b.get_window_extent())
    labels = [axes.yaxis.label for axes in figure.axes if axes.get_ylabel()]
    for label, axes in itertools.product(labels, figure.axes):
        assert not label.get_window_extent().overlaps(axes.get_window_extent())
    for artist in (*legends, *figure.texts, *titles, *labels):
        box = artist.get_window_extent()
        assert box.x0 >= figure.bbox.x0
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= figure.bbox.y0
        assert box.y1 <= figure.bbox.y1 + 1


def test_legends_cover_neither_axes_nor_notes(report, tmp_path):
    make_run(tmp_path, lr=3.0)
    make_run(tmp_path, lr=50.0, rows=[], state="diverged", error="the loss became nan")
    drawn = [figure_of(f"fig{number}", report, style=look) for number in (1, 2, 5) for look in figures.STYLES]
    drawn += [figures.curves(sweeps.load(tmp_path), by="lr"), figures.curves(report, by="activ,model")]
    drawn += [figures.curves(report, by="lr"), figures.curves(report)]
    for figure in drawn:
        assert_nothing_is_covered_or_clipped(figure)


def test_every_figure_shows_the_means_of_the_runs_that_its_file_names(report):
    """From the columns of ``runs`` alone, without any of the selection."""
    plain = {"activ": "relu", "loss": "ce", "model": "360", "lr": 0.01, "wd": 0.001, "mo": 0.9}
    for name, spec in STUDY.figures.items():
        figure = figure_of(name, report)
        for axes, panel in zip(figure.axes, spec.panels, strict=True):
            for line, value in zip(lines(axes), STUDY.axes[panel.lines].values, strict=True):
                runs = report.runs
                for key, held in {**plain, **panel.settings, panel.lines: value}.items():
                    runs = runs[runs[key] == held]
                epochs = report.epochs[report.epochs["run"].isin(runs["run"])]
                np.testing.assert_allclose(line.get_ydata(), epochs.groupby("epoch")[panel.metric].mean(), rtol=1e-12)


# -- the reference's curves, and its style ---------------------------------------------------------------------------


def test_the_reference_s_curves_are_thin_behind_ours(report):
    curves = reference.curves(STUDY)
    count = 0
    for name, spec in STUDY.figures.items():
        for axes, panel in zip(figure_of(name, report).axes, spec.panels, strict=True):
            thin = [line for line in axes.lines if is_reference(line)]
            for line, other, value in zip(thin, lines(axes), STUDY.axes[panel.lines].values, strict=True):
                found = reference.curve(STUDY, curves, {**panel.settings, panel.lines: value}, panel.metric, name)
                assert len(found) == 100
                shown = found[found["epoch"].between(1, 20)]  # as far as ours go
                assert list(line.get_xdata()) == list(shown["epoch"])
                assert list(line.get_ydata()) == list(shown["value"])
                assert line.get_color() == other.get_color()
                assert line.get_zorder() < other.get_zorder()
                count += 1
    assert count == 104
    # Read off the published figure: one layer of ReLU begins at 0.95373, and its first test is of guessing.
    base = {"activ": "relu", "model": "360"}
    assert reference.curve(STUDY, curves, base, "train_loss").iloc[0].tolist() == [1, 0.95373]
    assert reference.curve(STUDY, curves, base, "valid_loss").iloc[0]["value"] == pytest.approx(np.log(10), abs=0.01)
    assert "Thin lines: the report's own curves." in notes(figure_of("fig1", report))
    assert "report" in [text.get_text() for text in figure_of("fig1", report).legends[0].get_texts()]


@pytest.mark.parametrize(("number", "panels"), [(2, 4), (8, 3)])
def test_the_report_s_style_is_a_row_of_panels_on_linear_axes(report, number, panels):
    figure = figure_of(f"fig{number}", report, style="report")
    assert len(figure.axes) == panels
    assert len({axes.get_position().y0 for axes in figure.axes}) == 1
    assert {(axes.get_xscale(), axes.get_yscale()) for axes in figure.axes} == {("linear", "linear")}
    assert STUDY.figures[f"fig{number}"].title in [text.get_text() for text in figure.texts]
    thin = [line for line in figure.axes[1].lines if is_reference(line)]
    assert thin[0].get_xdata()[0] == 0
    assert figure.axes[1].get_ylim()[1] > max(line.get_ydata()[0] for line in thin)
    assert "logarithmic" not in notes(figure)


# -- any study's -----------------------------------------------------------------------------------------------------

LONG = "a rational quadratic kernel with a very long name"
ANY = {
    "title": "Kernels", "train": "python fit.py", "epochs": 30,
    "baseline": {"kernel": "rbf", "net.depth": 1, "batch": 16},
    "axes": {
        "kernel": {"title": "kernel function", "values": ["rbf", LONG, "poly", "linear", "cosine", "matern"],
                   "names": {"rbf": "RBF"}, "style": {"poly": "#D55E00 o"}},
        "net.depth": {"title": "depth of the network in layers", "values": [1, 2, 4]},
        "batch": [16, 64],
    },
    "metrics": {
        "auc": {"title": "area under the curve", "axis": "AUC"},
        "ppl": {"title": "perplexity", "scale": "log"},
    },
    "figures": {
        "1x1": {"caption": "c", "lines": "net.depth", "metrics": "auc"},
        "six": {"caption": "c", "lines": "kernel", "metrics": "auc"},
        "3x2": {"caption": "c", "lines": "kernel", "rows": "net.depth", "metrics": ["auc", "ppl"]},
        "axes": {"caption": "c", "lines": ["kernel", "net.depth", "batch"], "metrics": ["auc", "ppl"]},
        "column": {"caption": "c", "lines": ["kernel", "batch"], "metrics": "auc"},
        "rows": {"caption": "c", "lines": "batch", "rows": {"kernel": None}, "metrics": "auc", "title": "A title"},
        "absent": {"caption": "c", "lines": "batch", "metrics": ["auc", "acu"], "notes": ["A note.", "Two."]},
    },
}  # fmt: skip
MINE = file.parse(ANY, ROOT / "mine.yaml", "mine.yaml")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    out = tmp_path_factory.mktemp("kernels")
    for kernel, depth, batch, seed in itertools.product(ANY["axes"]["kernel"]["values"], (1, 2, 4), (16, 64), (0, 1)):
        curve = [1 - (0.5 + 0.01 * seed) / epoch**0.3 for epoch in range(1, 31)]
        config = {"kernel": kernel, "net": {"depth": depth}, "batch": batch, "seed": seed}
        stops = {"state": "diverged"} if (kernel, depth) == ("poly", 4) else {}
        make_other(out, config, {"auc": curve, "ppl": [20 * (1 - value) + 1 for value in curve]}, metric="auc", **stops)
    return sweeps.load(out)


@pytest.mark.parametrize("look", figures.STYLES)
@pytest.mark.parametrize("name", ANY["figures"])
def test_any_combination_of_axes_rows_and_metrics_is_laid_out(kernels, name, look):
    figure = figures.figure(MINE, MINE.figures[name], kernels, style=look)
    assert len(figure.axes) == len(MINE.figures[name].panels)
    assert_nothing_is_covered_or_clipped(figure)


def test_names_titles_and_styles_are_the_study_s(kernels):
    figure = figures.figure(MINE, MINE.figures["six"], kernels)
    handles = figure.legends[0].legend_handles
    assert [text.get_text() for text in figure.legends[0].get_texts()][:3] == ["RBF", LONG, "poly"]
    assert (handles[2].get_color(), handles[2].get_marker()) == ("#D55E00", "o")
    assert len({handle.get_color() for handle in handles}) == 6
    assert figure.axes[0].get_ylabel() == "AUC"
    assert notes(figure).startswith("Held fixed: depth of the network in layers 1, batch 16.")


def test_a_figure_says_what_it_is_of_without_a_text_around_it(report):
    for number in (1, 8):
        figure = figure_of(f"fig{number}", report)
        assert flat(figure.texts[0].get_text()) == STUDY.figures[f"fig{number}"].caption
        said = notes(figure)
        assert {"SGD", "MNIST"} <= set(re.findall(r"\w+", said))
        assert "batch size 200, dtype float32" in said
        assert ("learning rate 0.01, weight decay 0.001, momentum 0.9" in said) == (number == 1)
        assert ("ReLU, Cross entropy, SGD, 1 hidden layer, MNIST" in said) == (number == 8)
        assert "Valid is the test set" in said
    assert "Valid is the test set" not in notes(figure_of("fig6", report))  # shows none


def test_what_the_runs_have_in_common_is_said_without_a_word_of_the_study(tmp_path):
    for kernel in ("rbf", "poly"):
        config = {"kernel": kernel, "net": {"depth": 1}, "batch": 16, "dataset": "wine"}
        make_other(tmp_path, config, {"auc": [0.5, 0.6], "val_auc": [0.5, 0.6], "test_auc": [0.5, 0.6]}, metric="auc")
    c = sweeps.load(tmp_path)
    assert "Held fixed: batch 16, dataset wine, net.depth 1." in flat(notes(figures.curves(c, metric="auc")))
    assert "Valid is the test set" in notes(figures.curves(c, metric="val_auc"))
    assert "Valid is the test set" not in notes(figures.curves(c, metric="auc"))
    assert "batch 16, dataset wine." in notes(figures.figure(MINE, MINE.figures["six"], c))


def test_a_validation_set_of_its_own_is_not_called_the_test_set(tmp_path):
    make_run(tmp_path, rows=[row._replace(valid_acc=row.valid_acc - 1) for row in history(3)])
    assert "test set" not in notes(figure_of("fig7", sweeps.load(tmp_path)))


def test_panels_share_their_limits_unless_that_leaves_one_half_empty(tmp_path):
    def draw(kernel, *curve):
        make_other(tmp_path, {"kernel": kernel, "net": {"depth": 1}, "batch": 16}, {"auc": curve}, metric="auc")
        return figures.figure(MINE, MINE.figures["column"], sweeps.load(tmp_path))

    alike = draw("rbf", 0.5, 0.6)
    assert len({axes.get_ylim() for axes in alike.axes}) == 1
    assert "Value axes differ" not in notes(alike)
    kernels, batches = draw("poly", 0.01, 0.99).axes
    assert kernels.get_ylim()[0] < 0.01
    assert batches.get_ylim()[0] > 0.4
    assert "Value axes differ between panels." in notes(kernels.figure)


def test_where_runs_end_before_others_the_line_is_dashed_and_said_to_be_of_fewer(tmp_path):
    make_run(tmp_path, epochs=6, seed=0)
    make_run(tmp_path, epochs=6, seed=1)
    make_run(tmp_path, seed=2, target=6, state="interrupted", rows=history(4, seed=2, level=60))
    c = sweeps.load(tmp_path)
    for figure in (figure_of("fig7", c), figures.curves(c, metric="valid_acc", by="lr")):
        whole, fewer = lines(figure.axes[0])
        assert (whole.get_linestyle(), list(whole.get_xdata())) == ("-", [1, 2, 3, 4])
        assert (fewer.get_linestyle(), list(fewer.get_xdata())) == (
            "--",
            [5, 6],
        )  # no stroke from one mean to the other
        assert "0.01 from epoch 5: 2 of 3" in notes(figure)


def test_what_no_run_logs_and_what_a_baseline_leaves_open_is_said(kernels, tmp_path):
    said = notes(figures.figure(MINE, MINE.figures["absent"], kernels))
    assert "A note. Two. No run logs acu." in said
    for width in (1, 2):
        config = {"kernel": "rbf", "net": {"depth": 1}, "batch": 16, "width": width}
        make_other(tmp_path, config, {"auc": [0.5, 0.6]}, metric="auc")
    said = notes(figures.figure(MINE, MINE.figures["column"], sweeps.load(tmp_path)))
    assert "Lines pool runs that differ in width: give the study's baseline a value" in said
    assert f"No runs of: kernel {LONG}; " in said or f"No runs of: {LONG}; " in said
    assert re.search("; batch 64. To make them: .*train study=mine.yaml", said)


@pytest.mark.parametrize("epochs", [8, 30])
def test_a_few_epochs_are_on_a_linear_axis(tmp_path, epochs):
    make_run(tmp_path, epochs=epochs)
    axes = figure_of("fig5", sweeps.load(tmp_path)).axes[0]
    assert axes.get_xscale() == "linear"
    assert axes.get_xticks()[0] == 1
    assert len(axes.get_xticks()) <= 7
    assert "Epoch axis: logarithmic" not in notes(axes.figure)


def test_many_epochs_are_on_a_logarithmic_axis(tmp_path):
    make_run(tmp_path, epochs=31)
    axes = figure_of("fig5", sweeps.load(tmp_path)).axes[0]
    assert axes.get_xscale() == "log"
    assert "Epoch axis: logarithmic" in notes(axes.figure)


@pytest.mark.parametrize("last", [8, 30, 100, 1000])
@pytest.mark.parametrize("width", [1.1, 1.3, 2.7])
def test_numbers_of_the_epoch_axis_do_not_touch(last, width):
    with style.rc():
        figure = Figure(figsize=(4, 2))
        axes = figure.add_axes((0.2, 0.3, width / 4, 0.5))
        style.epoch_axis(axes, last)
        figure.draw_without_rendering()
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert len(boxes) >= 3
    assert min(b.x0 - a.x1 for a, b in itertools.pairwise(boxes)) > 0.02 * figure.dpi


def test_losses_of_different_kinds_are_said_to_differ(report):
    assert "differ in kind" in notes(figure_of("fig2", report))
    assert "differ in kind" not in notes(figure_of("fig1", report))


def test_a_diverged_run_is_marked_where_it_stopped_and_named(tmp_path):
    make_report(tmp_path, epochs=6, seeds=1)
    wild = history(4, seed=1)
    wild[-1] = wild[-1]._replace(train_loss=1e9)
    make_run(tmp_path, lr=0.1, seed=1, rows=wild, target=6, state="diverged", error="the loss became nan")
    make_run(tmp_path, lr=0.1, seed=2, rows=[], target=6, state="diverged", error="the loss became inf")
    figure = figure_of("fig6", sweeps.load(tmp_path))
    top = figure.axes[0].get_ylim()[1]
    assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses(figure.axes[0])} == {(4, top), (1, top)}
    assert top < 10  # the others stay readable
    assert not crosses(figure.axes[1])
    assert "diverged" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "lr 0.1 diverged in epoch 1, 5 (2 of 3 runs; the line goes on with the others)" in notes(figure)


def test_a_sweep_in_which_everything_diverged_is_a_figure_of_crosses(tmp_path):
    make_run(tmp_path, lr=0.1, rows=[], target=6, state="diverged", error="the loss became nan")
    for number in (5, 6, 7, 8):
        assert len(crosses(figure_of(f"fig{number}", sweeps.load(tmp_path)).axes[0])) == 1


def test_missing_and_unfinished_runs_are_said_with_the_command_that_makes_them(tmp_path):
    make_run(tmp_path, epochs=5)
    make_run(tmp_path, activ={"name": "tanh"}, epochs=3, target=5, state="interrupted")
    figure = figure_of("fig3", sweeps.load(tmp_path))
    said = notes(figure)
    assert "n = 1 seed: no interval" in said
    assert "Tanh, 1 hidden layer at 3/5" in said
    assert "No runs of: GeLU, 1 hidden layer; Sigmoid, 1 hidden layer; ReLU, 2 hidden layers; " in said
    assert re.search("To make them: .*train study=.*report.yaml", said)
    assert [text.get_text() for text in figure.axes[2].texts] == ["no runs"]


def test_nothing_at_all_is_an_input_error(tmp_path):
    make_run(tmp_path, bsz=7)
    for number in range(1, 9):
        with pytest.raises(InputError, match=r"figure=fig\d: none of its runs.*train study="):
            figure_of(f"fig{number}", sweeps.load(tmp_path))


@pytest.mark.parametrize("epochs", [1, 3])
def test_few_epochs_show_every_point(tmp_path, epochs):
    make_report(tmp_path, epochs=epochs, seeds=1)
    axes = figure_of("fig5", sweeps.load(tmp_path)).axes[0]
    assert {len(line.get_markevery()) for line in axes.lines if not is_reference(line)} == {epochs}
    assert list(axes.get_xticks()) == list(range(1, epochs + 1))


def test_after_one_epoch_intervals_are_bars(tmp_path):
    for lr, seed in itertools.product((0.1, 0.01), (0, 1, 2)):
        make_run(tmp_path, lr=lr, seed=seed, epochs=1)
    axes = figures.curves(sweeps.load(tmp_path), by="lr").axes[0]
    bars = [bar for bar in axes.collections if isinstance(bar, LineCollection)]
    assert len(bars) == 2
    assert all(np.ptp(bar.get_segments()[0][:, 1]) > 0 for bar in bars)


def test_flawless_accuracy_has_a_place_on_the_axis(tmp_path):
    make_run(tmp_path, rows=[row._replace(train_acc=100.0) for row in history(5)])
    axes = figure_of("fig5", sweeps.load(tmp_path)).axes[0]
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
    assert texts[0, 1] == f"{expected:.2f}"
    kept = c.runs.query("lr == 0.1 and wd == 0.0 and state == 'finished'")["valid_acc"].mean()
    assert texts[1, 0] == f"{kept:.2f}\n×1"
    assert (1, 1) not in texts
    assert "Mean of n = 2 seeds a cell after 3 epochs. ×: so many seeds diverged, and are left out." in notes(figure)


def test_a_heatmap_averages_only_runs_that_came_as_far_as_the_others(tmp_path):
    make_run(tmp_path, epochs=5, lr=0.1)
    make_run(tmp_path, lr=0.1, seed=1, rows=history(2, level=50), target=5, state="interrupted")
    make_run(tmp_path, lr=0.01, rows=history(2), target=5, state="interrupted")
    make_run(tmp_path, lr=0.1, wd=0.0, rows=history(3))  # finished, but not asked for as much
    c = sweeps.load(tmp_path)
    figure = figures.heatmap(c, x="lr", y="wd", value="test_acc")
    texts = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    whole = c.runs.query("lr == 0.1 and epoch == 5")["test_acc"].item()
    assert texts == {(1, 1): f"{whole:.2f}\n…1", (0, 1): "…1", (1, 0): "…1"}
    assert "…: so many have not come to epoch 5, and are left out." in notes(figure)
    early = figures.heatmap(sweeps.load(tmp_path, epochs=2), x="lr", y="wd", value="test_acc")
    assert not any("…" in text.get_text() for text in early.axes[0].texts)
    with pytest.raises(InputError, match="each run diverged or ended before epoch 5; give an earlier --epochs"):
        figures.heatmap(sweeps.load(tmp_path, "state=interrupted"), x="lr", y="seed", value="test_acc")


def test_a_heatmap_s_numbers_have_the_same_decimals_and_its_rows_an_order(tmp_path):
    for width, kind in itertools.product(("64", "128", "512x64", "512x128"), ("b", "a")):
        value = {"b": 12.0, "a": 3.25}[kind] + len(width)
        make_other(tmp_path, {"width": width, "kind": kind}, {"loss": [value]}, metric="loss", maximize=False)
    axes = figures.heatmap(sweeps.load(tmp_path), x="width", y="kind").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["64", "128", "512x64", "512x128"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # read downwards
    assert {text.get_text() for text in axes.texts} >= {"14.00", "5.25"}


def test_larger_stands_out_more_in_a_heatmap_as_in_curves(tmp_path):
    for lr, level in ((0.1, 98.0), (0.01, 60.0)):
        make_run(tmp_path, lr=lr, rows=history(3, level=level))
        make_run(tmp_path, lr=lr, wd=0.0, rows=history(3, level=level))
    image = figures.heatmap(sweeps.load(tmp_path), x="lr", y="wd", value="test_acc").axes[0].images[0]
    low, high = (image.cmap(image.norm(value))[:3] for value in (40.0, 98.0))
    assert contrast(high, "white") > 5 * contrast(low, "white")
    assert contrast(on_dark(high), PAGE) > 5 * contrast(on_dark(low), PAGE)


@pytest.mark.parametrize("wrong", [{"x": "lrr"}, {"y": "lr"}, {"value": "host"}, {"value": "valid_ac"}])
def test_a_heatmap_refuses_what_it_cannot_draw(report, wrong):
    with pytest.raises(InputError, match=next(iter(wrong.values()))):
        figures.heatmap(report, **{"x": "lr", "y": "wd"} | wrong)


# -- on a dark page ---------------------------------------------------------------------------------------------------


def test_a_dark_figure_is_readable_and_the_figure_stays_what_it_is(report):
    for figure in (figure_of("fig5", report), figures.heatmap(report, x="lr", y="wd"), figures.curves(report)):
        before = draw.render(figure, "svg")
        dark = draw.render(figure, "svg", dark=True)
        assert draw.render(figure, "svg") == before
        assert draw.render(figure, "svg", dark=True) == dark
        assert f"fill: {PAGE}".encode() in dark
        with in_dark(figure):
            assert to_rgb(figure.get_facecolor()) == to_rgb(PAGE)
            outside = [text for text in figure.findobj(Text) if text.axes is None or text not in text.axes.texts]
            assert min(contrast(text.get_color(), PAGE) for text in outside) > 4.5
            drawn = [line for axes in figure.axes for line in axes.lines if line.get_linewidth() > 0]
            assert min((contrast(line.get_color(), PAGE) for line in drawn), default=3.0) >= 3
            cells = [(text, axes.images[0]) for axes in figure.axes if axes.images for text in axes.texts]
            for text, image in cells:
                column, row = map(int, text.get_position())
                value = image.get_array()[row, column]
                cell = PAGE if np.ma.is_masked(value) else image.cmap(image.norm(value))[:3]
                assert contrast(text.get_color(), cell) > 3.75


def test_dark_keeps_order_and_contrast():
    for colors in ([look.color for look in style.styles((1, 2, 3, 4))], ["white", "#e3e3e3", "#4d5661", "black"]):
        found = [contrast(on_dark(color), PAGE) for color in colors]
        assert found == sorted(found)
        assert all(dark >= 0.99 * min(contrast(color, "white"), 17) for dark, color in zip(found, colors, strict=True))


def test_dark_is_the_page_s_dark():
    css = (ROOT / "sweeps" / "show" / "page" / "page.css").read_text("utf-8")
    assert f"--page: light-dark(#ffffff, {PAGE});" in css


# -- files -----------------------------------------------------------------------------------------------------------


def test_the_same_data_give_the_same_bytes_in_another_process(report, tmp_path):
    script = (
        "import sys, sweeps; from pathlib import Path; from sweeps.show import figures; from sweeps.study import file\n"
        "study = file.read(sys.argv[3])\n"
        "figure = figures.figure(study, study.figures['fig6'], sweeps.load(sys.argv[1]))\n"
        "figures.save(figure, Path(sys.argv[2]) / 'fig')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", script, report.out, tmp_path / name, STUDY.path], check=True, timeout=120)
    for suffix in draw.FORMATS:
        assert (tmp_path / "a" / f"fig.{suffix}").read_bytes() == (tmp_path / "b" / f"fig.{suffix}").read_bytes()


def test_all_three_formats_are_written_and_nothing_else(report, tmp_path):
    paths = figures.save(figure_of("fig1", report), tmp_path / "new" / "fig1")
    assert sorted(tmp_path.rglob("*.*")) == sorted(paths)
    starts = {path.suffix: path.read_bytes()[:5] for path in paths}
    assert starts == {".png": b"\x89PNG\r", ".svg": b"<?xml", ".pdf": b"%PDF-"}


def test_matplotlib_is_left_as_it_was(report, tmp_path):
    before = mpl.rcParams.copy()
    figures.save(figure_of("fig5", report), tmp_path / "fig")
    figures.heatmap(report, x="lr", y="wd")
    assert mpl.rcParams.copy() == before


def test_a_dollar_or_a_novel_in_a_configuration_is_only_text(report):
    runs = report.runs.assign(**{"optim.note": ["$\\frac{" + "x" * 500] * 30 + ["$"] * 33})
    figure = figures.curves(type(report)(runs, report.epochs, ()), by="optim.note")
    assert draw.render(figure, "svg").startswith(b"<?xml")
    assert max(len(text.get_text()) for text in figure.legends[0].get_texts()) <= 40
