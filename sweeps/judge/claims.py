"""The conclusions of report §4, each as one function from the collected runs to a :class:`Claim`.

The report gives its words no numbers; ours are a choice, the same for all claims: "better" and "faster" are a
difference above 0; "close", "suitable" and "still good" allow :data:`CLOSE` points; "marked", "≫" and "does not
reach" need more than :data:`MARKED`. They, and what is measured, were chosen when the curves of the activations and
losses at seed 0 and a first timing had been seen, but no run of another seed.

Claims without a depth are tested at both, as the report shows both.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from sweeps.judge import timing
from sweeps.judge.evidence import (
    Net,
    Versus,
    best_accuracy,
    final_accuracy,
    from_runs,
    from_timing,
    greater,
    plateau,
    rise,
    speed,
)
from sweeps.judge.verdicts import ALPHA, Claim, Comparison, holm
from sweeps.read.collect import Collection
from sweeps.read.summary import at, of_networks

CLOSE = 0.5
"""Percentage points of accuracy. Of those that the report calls close, it prints ReLU and GeLU: 0.24 and 0.22 apart."""
MARKED = 1.0
"""Percentage points of accuracy."""
OVERFITTING = 10.0
"""Percent by which a validation loss must have turned up to be called marked overfitting."""
BARELY_SLOWER, MUCH_SLOWER, MARKED_TIME = 1.25, 1.5, 1.1
"""Factors of time. In the report two layers take 1.18 times as long as one with ReLU, 1.92 with sigmoid, 1.97 with
GeLU; and against ReLU at one layer sigmoid takes 1.49 times as long, GeLU 2.73."""

_DEPTHS = ("360", "512x256")
_ACTIVATIONS = ("relu", "gelu", "tanh", "sigmoid")
_ACCURACY = (final_accuracy(10), final_accuracy(1), best_accuracy())
_SPEED = (speed(20), speed(10), speed(50))


def activation_accuracy(c: Collection) -> Claim:
    return from_runs(
        c,
        "activation-accuracy",
        "Test accuracy by activation: ReLU > GeLU > Tanh > Sigmoid, at one and at two layers.",
        "对于不同的激活函数在测试集上的表现, ReLU > GeLU > Tanh > Sigmoid",
        [pair for model in _DEPTHS for pair in greater(*_activations("relu", "gelu", "tanh", "sigmoid", model=model))],
        *_ACCURACY,
    )


def activation_close(c: Collection) -> Claim:
    pairs = [("relu", "gelu"), ("gelu", "tanh"), ("relu", "tanh")]
    return from_runs(
        c,
        "activation-close",
        f"ReLU, GeLU and Tanh are close: test accuracies within {CLOSE} points of each other.",
        "ReLU, GeLU, Tanh 三者表现相近",
        [
            Versus(Net(activ=a, model=model), Net(activ=b, model=model), low=-CLOSE, high=CLOSE)
            for model in _DEPTHS
            for a, b in pairs
        ],
        *_ACCURACY,
    )


def activation_speed(c: Collection) -> Claim:
    return from_runs(
        c,
        "activation-speed",
        f"Convergence by activation: GeLU > ReLU > Tanh ≫ Sigmoid (≫: by more than {MARKED:g} point).",
        "收敛速度: GeLU > ReLU > Tanh ≫ Sigmoid",
        [
            pair
            for model in _DEPTHS
            for pair in [
                *greater(*_activations("gelu", "relu", "tanh", model=model)),
                *greater(*_activations("tanh", "sigmoid", model=model), by=MARKED),
            ]
        ],
        *_SPEED,
    )


def activation_time(c: Collection) -> Claim:
    return from_timing(
        timing.load(c.out),
        "activation-time",
        "Time per epoch by activation: GeLU > Sigmoid > ReLU, at one and at two layers.",
        "耗时: GeLU > Sigmoid > ReLU",
        [pair for model in _DEPTHS for pair in greater(*_activations("gelu", "sigmoid", "relu", model=model), by=1.0)],
    )


def no_overfitting(c: Collection) -> Claim:
    return from_runs(
        c,
        "no-overfitting",
        f"No activation overfits markedly: the validation loss does not turn up by {OVERFITTING:g} % or more.",
        "各种激活函数的 Loss 都没有出现明显的过拟合",
        [Versus(Net(activ=activ, model=model), high=OVERFITTING) for model in _DEPTHS for activ in _ACTIVATIONS],
        rise(),
    )


def sigmoid_plateau(c: Collection) -> Claim:
    return from_runs(
        c,
        "sigmoid-plateau",
        "Two layers of sigmoid begin on a plateau (a whole epoch or more at the loss of guessing); one layer of "
        "sigmoid and two layers of tanh do not.",
        "2-layer MLP 使用 Sigmoid 在初始阶段出现了平台; 与之有相似形状的 Tanh 有明显不同",
        [
            Versus(Net(activ="sigmoid", model="512x256"), low=1.0),
            Versus(Net(activ="sigmoid", model="360"), high=1.0),
            Versus(Net(activ="tanh", model="512x256"), high=1.0),
        ],
        plateau(),
        notes=["That there is a plateau says nothing yet about the cause that the report gives for it, saturation"],
    )


def loss_accuracy(c: Collection) -> Claim:
    return from_runs(
        c,
        "loss-accuracy",
        "Test accuracy by loss: Hinge > CE > Euclidean, at one and at two layers.",
        "对于不同损失函数在测试集上的表现, HingeLoss > CELoss > Euclidean",
        [pair for model in _DEPTHS for pair in greater(*_losses("hinge", "ce", "euclidean", model=model))],
        *_ACCURACY,
        notes=["The report's own table has Euclidean (98.27) above CE (98.17) at two layers"],
    )


def loss_speed(c: Collection) -> Claim:
    return from_runs(
        c,
        "loss-speed",
        "Convergence by loss: Hinge > CE > Euclidean, at one and at two layers.",
        "收敛速度: Hinge > CELoss > Euclidean",
        [pair for model in _DEPTHS for pair in greater(*_losses("hinge", "ce", "euclidean", model=model))],
        *_SPEED,
        notes=["Losses of different kinds have no common scale, so accuracies are compared"],
    )


def depth_gain(c: Collection) -> Claim:
    kinds = [{"activ": activ} for activ in _ACTIVATIONS] + [{"loss": loss} for loss in ("hinge", "euclidean")]
    return from_runs(
        c,
        "depth-gain",
        f"Two layers do slightly better than one: test accuracy higher, by less than {MARKED:g} point, for every "
        "activation and loss.",
        "2 层网络表现略好于 1 层网络, 但提升不明显",
        [Versus(Net(**kind, model="512x256"), Net(**kind, model="360"), low=0.0, high=MARKED) for kind in kinds],
        *_ACCURACY,
    )


def exp_depth(c: Collection) -> Claim:
    def deeper(activ: str, **bounds: float) -> Versus:
        return Versus(Net(activ=activ, model="512x256"), Net(activ=activ, model="360"), **bounds)

    return from_timing(
        timing.load(c.out),
        "exp-depth",
        f"With ReLU, two layers take barely longer than one (less than {BARELY_SLOWER} times); with sigmoid, GeLU and "
        f"tanh much longer (more than {MUCH_SLOWER} times).",
        "当激活函数使用 ReLU 时, 2 层 MLP 仅仅比 1 层 MLP 慢一点; 使用 Sigmoid, GeLU, Tanh 时, 差距较大",
        [
            deeper("relu", high=BARELY_SLOWER),
            *(deeper(activ, low=MUCH_SLOWER) for activ in ("sigmoid", "gelu", "tanh")),
        ],
        notes=["Two layers have 1.87 times the multiplications of one"],
    )


def exp_cost(c: Collection) -> Claim:
    return from_timing(
        timing.load(c.out),
        "exp-cost",
        f"An activation with an exponential adds marked time: an epoch takes more than {MARKED_TIME} times as long as "
        "with ReLU.",
        "激活函数层存在指数运算会明显增加训练时间",
        [
            Versus(Net(activ=activ, model=model), Net(activ="relu", model=model), low=MARKED_TIME)
            for model in _DEPTHS
            for activ in ("sigmoid", "gelu", "tanh")
        ],
    )


def lr_speed(c: Collection) -> Claim:
    return from_runs(
        c,
        "lr-speed",
        "A smaller learning rate converges more slowly: 0.1 > 0.01 > 0.001 > 0.0001.",
        "更小的学习率意味着更慢的收敛速度",
        greater(*_sweep("lr", 0.1, 0.01, 0.001, 0.0001)),
        *_SPEED,
    )


def lr_small_is_accurate(c: Collection) -> Claim:
    return from_runs(
        c,
        "lr-small-is-accurate",
        "A smaller learning rate often ends at a higher test accuracy: at least two of the three steps down from 0.1 "
        "to 0.0001 raise it.",
        "更小的学习率 … 往往最终测试准确率较高",
        greater(*_sweep("lr", 0.0001, 0.001, 0.01, 0.1)),
        *_ACCURACY,
        required=2,
    )


def lr_best(c: Collection) -> Claim:
    return from_runs(
        c,
        "lr-best",
        "Of the four learning rates, 0.01 gives the best test accuracy.",
        "1-layer MLP 使用 lr = 0.01 是较优的",
        [Versus(Net(lr=0.01), Net(lr=lr), low=0.0) for lr in (0.1, 0.001, 0.0001)],
        *_ACCURACY,
    )


def lr_too_low(c: Collection) -> Claim:
    return from_runs(
        c,
        "lr-too-low",
        f"Too low a learning rate does not reach a good accuracy: 0.0001 stays more than {MARKED:g} point below 0.01.",
        "过低的学习率会使得模型难以收敛到很好的准确率",
        [Versus(Net(lr=0.01), Net(lr=0.0001), low=MARKED)],
        *_ACCURACY,
    )


def wd_suitable(c: Collection) -> Claim:
    return from_runs(
        c,
        "wd-suitable",
        f"A weight decay of 0.001 is suitable: no other of the four is better by {CLOSE} points of test accuracy.",
        "1-layer MLP 使用 0.001 的 weight decay 较为合适",
        [Versus(Net(wd=0.001), Net(wd=wd), low=-CLOSE) for wd in (0.0, 0.01, 0.1)],
        *_ACCURACY,
    )


def wd_too_large(c: Collection) -> Claim:
    return from_runs(
        c,
        "wd-too-large",
        f"A large weight decay does not reach a high accuracy: 0.01 and 0.1 stay more than {MARKED:g} point below "
        "0.001.",
        "较大的 weight decay 会使得模型收敛不到准确率高的点",
        [Versus(Net(wd=0.001), Net(wd=wd), low=MARKED) for wd in (0.01, 0.1)],
        *_ACCURACY,
    )


def wd_zero(c: Collection) -> Claim:
    return from_runs(
        c,
        "wd-zero",
        f"Without weight decay the net still does well: at most {CLOSE} points of test accuracy below 0.001.",
        "weight decay = 0.0 时模型依然表现地很好",
        [Versus(Net(wd=0.0), Net(wd=0.001), low=-CLOSE)],
        *_ACCURACY,
    )


def wd_speed(c: Collection) -> Claim:
    return from_runs(
        c,
        "wd-speed",
        "A smaller weight decay converges faster: 0 > 0.001 > 0.01 > 0.1.",
        "weight decay 越小, 收敛速度越快",
        greater(*_sweep("wd", 0.0, 0.001, 0.01, 0.1)),
        *_SPEED,
    )


def mo_speed(c: Collection) -> Claim:
    return from_runs(
        c,
        "mo-speed",
        "A larger momentum converges faster: 0.9 > 0.5 > 0.1 > 0.",
        "momentum 较大时, 模型的收敛速度 … 较高",
        greater(*_sweep("mo", 0.9, 0.5, 0.1, 0.0)),
        *_SPEED,
        notes=["Momentum also makes steps 1 / (1 − mo) times as large; this comparison does not tell the two apart"],
    )


def mo_accuracy(c: Collection) -> Claim:
    return from_runs(
        c,
        "mo-accuracy",
        "A larger momentum reaches a higher test accuracy: 0.9 > 0.5 > 0.1 > 0.",
        "momentum 较大时, 模型的 … 测试准确率 … 较高",
        greater(*_sweep("mo", 0.9, 0.5, 0.1, 0.0)),
        *_ACCURACY,
    )


CLAIMS: Mapping[str, Callable[[Collection], Claim]] = {
    "activation-accuracy": activation_accuracy,
    "activation-close": activation_close,
    "activation-speed": activation_speed,
    "activation-time": activation_time,
    "no-overfitting": no_overfitting,
    "sigmoid-plateau": sigmoid_plateau,
    "loss-accuracy": loss_accuracy,
    "loss-speed": loss_speed,
    "depth-gain": depth_gain,
    "exp-depth": exp_depth,
    "exp-cost": exp_cost,
    "lr-speed": lr_speed,
    "lr-small-is-accurate": lr_small_is_accurate,
    "lr-best": lr_best,
    "lr-too-low": lr_too_low,
    "wd-suitable": wd_suitable,
    "wd-too-large": wd_too_large,
    "wd-zero": wd_zero,
    "wd-speed": wd_speed,
    "mo-speed": mo_speed,
    "mo-accuracy": mo_accuracy,
}
"""A claim judged by calling its function stands alone; :func:`evaluate` corrects for there being many."""


def evaluate(collection: Collection) -> list[Claim]:
    """All claims, judged together: see :func:`sweeps.judge.verdicts.holm`."""
    collection = of_networks(collection)
    swept = dict.fromkeys(("activ", "loss", "model", "lr", "wd", "mo"))
    near = at(collection.runs, **swept)  # the base point's plane, once, instead of all runs for each claim
    epochs = collection.epochs[collection.epochs["run"].isin(near["run"])]
    plane = replace(collection, runs=near, epochs=epochs)
    return holm([claim(plane) for claim in CLAIMS.values()])


def method(claims: Iterable[Claim]) -> str:
    """How the verdicts were reached, for the reader of a table of them."""
    family = max((claim.family for claim in claims), default=0)
    return (
        f"The {family} claims are judged together: by Holm's correction the chance that any decided verdict "
        f"is wrong is at most {100 * ALPHA:g} %, if differences between seeds are roughly normal. A claim holds if all "
        "its comparisons are shown to (or as many as it says), and fails if one (or too many) is shown not to. Runs are"
        " compared seed by seed: the same shuffles and, for nets of one shape, the same initial weights. Intervals are "
        "Student's t, 95 %, for the one comparison beside them; three seeds leave two degrees of freedom, hence their "
        "width. They cover seeds alone: another 10,000 test images would themselves move an accuracy by about 0.15 "
        "points."
    )


def to_markdown(claims: Iterable[Claim]) -> str:
    """A table of verdicts, then each claim with its detail, comparisons and runs."""
    listed = list(claims)
    lines = ["# Conclusions of the report, checked", "", method(listed), ""]
    lines += ["| claim | verdict | effect | 95 % interval | n | p, corrected |", "| --- " * 6 + "|"]
    for claim in listed:
        effect, around = _effect(claim)
        lines.append(f"| {claim.text} | **{claim.verdict}** | {effect} | {around} | {claim.n} | {_p(claim)} |")
    for claim in listed:
        lines += ["", f"## {claim.name}: {claim.verdict}", "", f"{claim.text} 「{claim.quote}」", "", claim.detail]
        if claim.comparisons:
            lines += ["", "| comparison | wanted | found | 95 % interval | alone |", "| --- " * 5 + "|"]
            lines += [_row(comparison) for comparison in claim.comparisons]
        if claim.runs:
            lines += ["", "Rests on " + ", ".join(f"`{run}`" for run in claim.runs) + "."]
    return "\n".join(lines) + "\n"


def to_text(claims: Iterable[Claim]) -> str:
    """A line for each claim: verdict, name, and the comparison that it hangs on."""
    return "".join(
        f"{claim.verdict:<10} {claim.name:<22} {claim.decisive.describe() if claim.decisive else claim.detail}\n"
        for claim in claims
    )


def to_json(claims: Iterable[Claim]) -> str:
    """The same as data; what is not a finite number is null."""
    listed = list(claims)
    content = {
        "method": method(listed),
        "claims": [
            {
                "name": claim.name,
                "text": claim.text,
                "quote": claim.quote,
                "verdict": claim.verdict,
                "effect": _finite(claim.effect),
                "unit": claim.unit,
                "interval": [_finite(x) for x in claim.interval],
                "n": claim.n,
                "sample": claim.sample,
                "p": claim.p,
                "p_adjusted": claim.p_adjusted,
                "detail": claim.detail,
                "comparisons": [_comparison(comparison) for comparison in claim.comparisons],
                "runs": list(claim.runs),
            }
            for claim in listed
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _activations(*names: str, model: str) -> list[Net]:
    return [Net(activ=name, model=model) for name in names]


def _losses(*names: str, model: str) -> list[Net]:
    return [Net(loss=name, model=model) for name in names]


def _sweep(key: str, *values: float) -> list[Net]:
    return [Net(**{key: value}) for value in values]


def _effect(claim: Claim) -> tuple[str, str]:
    if claim.decisive is None:
        return "", ""
    low, high = claim.interval
    shown = claim.decisive.show
    return claim.decisive.found, "" if math.isnan(low) else f"{shown(low)} … {shown(high)}"


def _p(claim: Claim) -> str:
    p = claim.p if claim.p_adjusted is None else claim.p_adjusted
    return "" if not claim.comparisons or claim.obstacle else "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _row(c: Comparison) -> str:
    low, high = c.interval
    around = "" if math.isnan(low) else f"{c.show(low)} … {c.show(high)}"
    return f"| {c.label} | {c.wanted} | {c.found} | {around} | {c.verdict} |"


def _comparison(c: Comparison) -> dict[str, Any]:
    return {
        "label": c.label,
        "wanted": c.wanted,
        "effect": _finite(c.effect),
        "unit": c.unit,
        "interval": [_finite(x) for x in c.interval],
        "n": c.n,
        "p_for": c.p_for,
        "p_against": c.p_against,
        "verdict": c.verdict,
    }


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
