"""The forest plot: every comparison has its row, and what is drawn is what was found."""

import math
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from sweeps.judge.findings import Cell, Comparison, Finding
from sweeps.judge.statistics import Variance
from sweeps.show.draw import render
from sweeps.show.forest import forest
from sweeps.study import file


def cells(unit, means, n=5):
    rng = np.random.default_rng(0)
    values = {name: rng.normal(mean, 0.05, n) for name, mean in means.items()}
    return {name: Cell(name, tuple(np.log(x) if unit == "×" else x)) for name, x in values.items()}


@pytest.fixture
def findings():
    point = cells("points", {"ReLU": 98.0, "GeLU": 97.6, "Tanh": 97.6, "Sigmoid": 94.0})
    pairs = [("ReLU", "GeLU"), ("GeLU", "Tanh"), ("Sigmoid", "Tanh")]
    order = [Comparison(point[a], point[b], "points", 0.0, delta=0.2) for a, b in pairs]
    time = cells("×", {"slow": 2.0, "fast": 1.0}, n=25)
    ratio = Comparison(time["slow"], time["fast"], "×", math.log(1.5), variance=Variance.TRIMMED)
    blank = Finding("order", "text", "", "accuracy", tuple(order), ())
    return [blank, replace(blank, name="time", comparisons=(ratio,), sample="round")]


def test_equal_numbers_leave_the_axis_a_width(findings):
    same = Cell("a", (0.0, 0.0, 0.0))
    axes = forest([replace(findings[0], comparisons=(Comparison(same, same, "points", 0.0),))]).axes[0]
    low, high = axes.get_xlim()
    assert low < 0 < high


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_every_comparison_has_a_row_and_every_unit_a_panel(findings):
    points, times = forest(findings).axes
    rows = zip(findings[0].comparisons, "✓≈✗", strict=True)
    drawn = [text for c, sign in rows for text in (c.label, f"{c.effect:+.2f} {sign}")]
    assert texts(points) == ["order: contradicted", "text Measured: accuracy; n = 5 seeds.", *drawn]
    assert texts(times)[:3] == ["time: holds", "text Measured: accuracy; n = 25 rounds.", "slow / fast"]
    assert times.get_xscale() == "log"
    assert (points.get_xlabel(), times.get_xlabel()) == ("points", "ratio")


def test_seeds_means_and_intervals_stand_where_they_are(findings):
    _, times = forest(findings).axes
    comparison = findings[1].judged.comparisons[0]
    dots = next(line for line in times.lines if len(line.get_xdata()) == 25)
    assert dots.get_xdata() == pytest.approx(np.exp(comparison.differences))
    drawn = [tuple(line.get_xdata()) for line in times.lines]
    assert (comparison.effect,) in drawn
    assert comparison.interval in [tuple(map(float, x)) for x in drawn]
    low, high = times.get_xlim()
    assert low < min(1.0, *dots.get_xdata()) < max(dots.get_xdata()) < high


def test_one_seed_and_no_data_can_be_drawn(findings):
    single = replace(findings[0], comparisons=tuple(c.first(1) for c in findings[0].comparisons))
    empty = replace(findings[0], name="empty", comparisons=(), obstacle="missing")
    figure = forest([single, empty])
    assert len(texts(figure.axes[0])) == len(texts(forest([single]).axes[0]))  # no empty row
    assert "No data yet: empty." in figure.texts[-1].get_text()
    assert render(figure, "png")
    assert render(forest([empty]), "png")
    with pytest.raises(ValueError, match="must not be empty"):
        forest([])


def test_it_can_be_read_by_itself(findings):
    study = file.read(str(ROOT / "conf" / "study" / "report.yaml"))
    deep = replace(
        findings[0], comparisons=tuple(replace(c, a=Cell("ReLU 2L", c.a.values)) for c in findings[0].comparisons)
    )
    figure = forest([deep], study)
    assert figure.texts[0].get_text() == "Multilayer perceptrons on MNIST: hypotheses"
    said = " ".join(figure.texts[-1].get_text().split())
    assert "names nothing else: ReLU, Cross entropy, SGD, 1 hidden layer, MNIST, learning rate 0.01" in said
    assert "2L: 2 hidden layers." in said
    assert "1L" not in said


def test_no_text_is_clipped(findings):
    long = replace(findings[0], text="A statement of many words, as hypotheses are that must be precise. " * 3)
    figure = forest([long, findings[1]], file.read(str(ROOT / "conf" / "study" / "report.yaml")))
    figure.draw_without_rendering()
    for text in [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1 + 1


def test_the_same_findings_give_the_same_bytes(findings):
    assert render(forest(findings), "svg") == render(forest(findings), "svg")
