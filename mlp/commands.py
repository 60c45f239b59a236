"""The commands that networks add to ``mlp-sweeps``: gradients, weights, landscape, timing and mistakes."""

import argparse

from sweeps.cli import AddCommand, choose_study, figure_stem, load, written


def add(command: AddCommand) -> None:
    """Register them; called through the entry point group ``sweeps.commands``."""
    command("gradients", _gradients, "gradient flow and saturation of runs with stats, in DIR/figures")
    sub = command("weights", _weights, "a run's first layer as images, in DIR/figures", filters=False)
    sub.add_argument("name", metavar="RUN", help="id, its beginning, or a path")
    sub.add_argument("--units", type=int, default=100, metavar="N", help="the N strongest (100)")
    sub = command("landscape", _landscape, "the loss from initial to trained weights, in DIR/figures", filters=False)
    sub.add_argument("names", nargs="+", metavar="RUN")
    sub = command("timing", _timing, "time a study's nets alone, for its hypotheses about time", filters=False)
    sub.add_argument("filters", nargs="*", metavar="study=NAME", help="of conf/study, or a .yaml file")
    sub.add_argument("--rounds", type=int, default=25, metavar="N", help="(25)")
    sub = command("mistakes", _mistakes, "draw what a trained network gets wrong, in DIR/evaluations", filters=False)
    sub.add_argument("name", metavar="RUN", help="id, its beginning, or a path")
    sub.add_argument("words", metavar="data=NAME data.KEY=VALUE", nargs="*", help="other data than the run's own")


def _gradients(args: argparse.Namespace) -> int:
    from mlp.inspect import diagnostics
    from sweeps.show import draw

    return written(draw.save(diagnostics.gradients(load(args)), figure_stem(args.out, "gradients")))


def _weights(args: argparse.Namespace) -> int:
    from mlp.inspect import diagnostics
    from mlp.inspect.restore import restore
    from sweeps.runs.reading import find
    from sweeps.show import draw

    run = find(args.out, args.name)
    figure = diagnostics.weights(restore(run), units=args.units)
    return written(draw.save(figure, figure_stem(args.out, f"weights-{run.path.name}")))


def _landscape(args: argparse.Namespace) -> int:
    from mlp.inspect import diagnostics
    from mlp.inspect.restore import restore
    from sweeps.runs.reading import find
    from sweeps.show import draw

    figure = diagnostics.landscape([restore(find(args.out, name)) for name in args.names])
    return written(draw.save(figure, figure_stem(args.out, "landscape")))


def _timing(args: argparse.Namespace) -> int:
    from mlp import timing
    from sweeps.study.measures import Time

    study = choose_study(args)
    nets = {
        hypothesis.measure.cell(study.complete(cell)): study.overrides(cell)
        for hypothesis in study.hypotheses.values()
        if isinstance(hypothesis.measure, Time)
        for cell in hypothesis.cells
    }
    return written([timing.measure(args.out, nets, rounds=args.rounds)])


def _mistakes(args: argparse.Namespace) -> int:
    from mlp import evaluate
    from mlp import load as load_model
    from mlp.inspect import misclassified

    model = load_model(args.name, args.out)
    choice, dataset = evaluate.choose_data(model, args.words)
    result = evaluate.evaluate(model, dataset)
    stem = evaluate.folder(model, args.out) / evaluate.stem(choice, dataset)
    title = f"{model.run_id}, epoch {model.epoch}, {choice.name}"
    return written(misclassified.write(result, dataset.test, choice.name, title, stem))
