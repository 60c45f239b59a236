"""``mlp-sweeps COMMAND``: collect and draw runs, check conclusions, look at runs, work on them, tidy up.

Exit status: 0 done, 1 a run or file cannot be read, 2 unusable input, 130 interrupted by Ctrl-C. Of ``work``: 0 all
finished, 1 a run failed or is left.
"""

import argparse
import hashlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import sweeps
from sweeps import overview
from sweeps.read import extensions
from sweeps.runs.command import fail, printed, run, tree
from sweeps.runs.errors import InputError, printable
from sweeps.runs.files import folder, write_atomic
from sweeps.runs.schema import integer, number

if TYPE_CHECKING:
    from sweeps.keep import Selection
    from sweeps.read.collect import Collection
    from sweeps.study.study import Study

_DESCRIPTION = """Read the runs of a results tree: list, compare, judge and keep them. What trains them is mlp-train, or
a program of your own. Also: python -m sweeps."""

Command = Callable[[argparse.Namespace], int]
"""Carries out a command and returns the exit status."""


class AddCommand(Protocol):
    """What a function of the entry points ``sweeps.commands`` is called with."""

    def __call__(self, name: str, run: Command, summary: str, *, filters: bool = True) -> argparse.ArgumentParser:
        """The parser of a new command, with ``--out`` and, unless ``filters`` is false, those of the runs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""

    def command() -> int:
        args = _parse(list(sys.argv[1:] if argv is None else argv))
        import numpy as np

        with np.errstate(over="ignore", invalid="ignore"):  # one run's 1e308 makes an infinite mean, and no warnings
            status: int = args.run(args)
        return status

    return run(command)


# ---------------------------------------------------------------------------------------------------------- arguments


def _parse(argv: list[str]) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="mlp-sweeps", usage="%(prog)s COMMAND [--out DIR] ...", description=_DESCRIPTION, formatter_class=raw
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(prog="mlp-sweeps", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    summaries: dict[str, str] = {}

    def command(name: str, run: Command, summary: str, *, filters: bool = True) -> argparse.ArgumentParser:
        summaries[name] = summary
        said = overview.example(name)
        sub = commands.add_parser(
            name,
            description=f"{summary[:1].upper()}{summary[1:]}.",
            epilog=said and f"example:\n  {said}",
            formatter_class=raw,
        )
        sub.set_defaults(run=run, filters=[] if filters else None)
        sub.add_argument("--out", type=Path, default=Path("outputs"), metavar="DIR", help="results tree (outputs)")
        if filters:
            sub.add_argument("filters", nargs="*", metavar="FILTER", help="activ=relu,gelu  'lr<=0.01'  state!=failed")
            sub.add_argument("--sweep", metavar="NAME", help="only this sweep's runs")
            sub.add_argument("--epochs", type=int, metavar="N", help="every run as of epoch N")
        return sub

    command("collect", _collect, "runs and epochs as Parquet and CSV in DIR")
    sub = command("tables", _tables, "a study's tables, in DIR/tables; or, with --rows and --cols, any comparison")
    sub.add_argument("--only", type=_comma_list, metavar="NAMES", help="e.g. table1,lr")
    sub.add_argument("--rows", type=_comma_list, default=[], metavar="KEYS", help="e.g. activ")
    sub.add_argument("--cols", type=_comma_list, default=[], metavar="KEYS", help="e.g. model,optim")
    sub.add_argument("--values", type=_comma_list, metavar="METRICS", help="(what the runs judge by)")
    sub.add_argument("--format", choices=("md", "tex", "csv"), default="md", help="of a comparison (md)")
    sub = command("figures", _figures, "a study's figures, in DIR/figures")
    sub.add_argument("--only", type=_comma_list, metavar="NAMES", help="e.g. fig5,fig6")
    sub.add_argument(
        "--style", choices=("plain", "report"), default="plain", help="report: linear axes, panels in a row"
    )
    command("fidelity", _fidelity, "how near the runs are to the curves of a study's reference, in DIR/tables")
    sub = command("curves", _curves, "any metric over the epochs, in DIR/figures")
    sub.add_argument("--metric", help="(what the runs judge by)")
    sub.add_argument("--by", metavar="KEYS", help="one curve for each value of these, e.g. lr (all that vary)")
    sub = command("heatmap", _heatmap, "any run metric over two keys, in DIR/figures")
    sub.add_argument("--x", required=True, metavar="KEY")
    sub.add_argument("--y", required=True, metavar="KEY")
    sub.add_argument("--value", metavar="METRIC", help="(the best of what the runs judge by)")
    sub = command("importance", _importance, "how much of a metric's variance each key explains")
    sub.add_argument("--metric", help="(what the runs judge by)")
    sub.add_argument("--csv", action="store_true", help="full precision, for programs")
    sub = command("claims", _claims, "a study's hypotheses, checked, in DIR/claims.md and .json")
    sub.add_argument("--only", type=_comma_list, metavar="NAMES")
    sub.add_argument("--brief", action="store_true", help="a line for each")
    command("report", _report, "everything on one page, DIR/report/index.html; study=NAME puts a study first")
    sub = command("serve", _serve, "the page on localhost, read-only, reloaded while runs go on, until Ctrl-C")
    sub.add_argument("--port", type=int, default=8780, metavar="N", help="0 for any that is free (8780)")
    sub.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (127.0.0.1); WARNING: on any other the network can read along, unencrypted",
    )
    sub = command("check", _check, "what a study would run and test", filters=False)
    sub.add_argument("filters", nargs="*", metavar="study=NAME", help="of conf/study, or a .yaml file")
    sub = command(
        "train", _train, "train a study's runs: the seeds for design, and those of its first look", filters=False
    )
    sub.add_argument(
        "filters", nargs="*", metavar="study=NAME KEY=VALUE", help="a study, and overrides for its program"
    )
    sub.add_argument("--seeds", type=int, metavar="N", help="so many fresh seeds instead")
    sub.add_argument("--until-decided", action="store_true", help="look by look, until no hypothesis is open")
    sub = command("export", _export, "tell a tracker of runs that exist already; again, and it hears only what is new")
    sub.add_argument("--to", required=True, choices=("mlflow", "tensorboard"))
    sub.add_argument("--uri", metavar="URI", help="MLflow's server or database (MLFLOW_TRACKING_URI, or DIR/mlflow.db)")
    sub.add_argument("--experiment", default="mlp-sweeps", metavar="NAME", help="MLflow's (mlp-sweeps)")
    sub.add_argument("--dir", metavar="LOGS", help="TensorBoard's (DIR/tensorboard)")
    sub = command("ls", _ls, "list runs")
    sub.add_argument("--sort", metavar="COLUMN", help="e.g. test_acc; -test_acc for the highest first")
    sub.add_argument("--columns", type=_comma_list, metavar="COLUMNS")
    sub.add_argument("--limit", type=int, metavar="N", help="rows at most; 0 for all")
    sub.add_argument("--csv", action="store_true", help="full precision, for programs")
    command(
        "sweeps",
        _sweeps,
        "list sweeps: how their runs stand, and their commands",
        filters=False,
    )
    sub = command("show", _show, "one run: configuration, status, metrics, provenance", filters=False)
    sub.add_argument("name", metavar="RUN", help="id, its beginning, or a path")
    sub = command("diff", _diff, "two runs: where they differ, and their metrics", filters=False)
    sub.add_argument("names", nargs=2, metavar="RUN")
    _add_keeping(command)
    sub = command("watch", _watch, "the running runs, live, until Ctrl-C", filters=False)
    sub.add_argument("--sweep", metavar="NAME", help="only this sweep's runs")
    sub.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="between updates (1)")
    sub.add_argument("--once", action="store_true", help="show it once")

    sub = command("work", _work, "train what is left of planned sweeps; any number of workers, anywhere", filters=False)
    sub.add_argument("names", nargs="*", metavar="SWEEP", help="(all that are planned in DIR)")
    sub.add_argument("--workers", type=int, default=1, metavar="N", help="runs at once (1)")
    sub.add_argument("--max-time", metavar="TIME", help="stop at a checkpoint after it, e.g. 55m or 1h30m")
    sub.add_argument("--trust", action="store_true", help="run the code of plans that another user made, too")
    sub = command("stop", _stop, "end sweeps at checkpoints, wherever they are worked on", filters=False)
    sub.add_argument("names", nargs="+", metavar="SWEEP")

    for add in extensions.load(extensions.COMMANDS):
        add(command)

    parser.epilog = overview.text(summaries)
    args, rest = parser.parse_known_args(_joined(argv))
    if rest and (args.filters is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    if rest:  # filters that came after an option
        args.filters += rest
    return args


class _Version(argparse.Action):
    """Looks the version up only when it is wanted, unlike argparse's own."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"mlp-sweeps {sweeps.__version__}")
        parser.exit()


def _add_keeping(command: AddCommand) -> None:
    """The commands that change what is kept of runs."""

    def chosen(name: str, run: Command, summary: str) -> argparse.ArgumentParser:
        sub = command(name, run, summary, filters=False)
        sub.set_defaults(filters=[])
        sub.add_argument("filters", nargs="*", metavar="RUN|FILTER", help="names, or filters as for ls")
        sub.add_argument("--sweep", metavar="NAME", help="only this sweep's runs")
        sub.add_argument("--force", action="store_true", help="also runs that another sweep has, or may go on with")
        sub.add_argument("--dry-run", action="store_true", help="say what would be removed, and remove nothing")
        return sub

    sub = chosen("prune", _prune, "remove checkpoints of finished runs")
    sub.add_argument("--keep", default="last", metavar="WHICH", help="last, none, or those of the best:N runs (last)")
    chosen("rm", _rm, "remove runs whole")
    for name, summary in (("tag", "give a run, or all that a filter chooses, tags"), ("untag", "take tags away")):
        sub = command(name, _tag, summary, filters=False)
        sub.set_defaults(change=name)
        sub.add_argument("name", metavar="RUN|FILTER", help="id, its beginning, or a path; or a filter as for ls")
        sub.add_argument("tags", nargs="+", metavar="TAG")
    sub = command("note", _note, "give a run a note, or show it", filters=False)
    sub.add_argument("name", metavar="RUN", help="id, its beginning, or a path")
    sub.add_argument("text", nargs="?", metavar="TEXT", help="empty to remove it")


def _joined(argv: list[str]) -> list[str]:
    """``--sort -lr`` as ``--sort=-lr``, which argparse would take for an option."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] == "--sort":
            words[-1] = f"--sort={word}"
        else:
            words.append(word)
    return words


def _comma_list(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


# ----------------------------------------------------------------------------------------------------------- commands


def load(args: argparse.Namespace) -> "Collection":
    """The runs that a command's filters choose; a line of warning for each directory that cannot be read."""
    from sweeps.read import collect

    collection = collect.load(args.out, *args.filters, sweep=args.sweep, epochs=args.epochs)
    _warn(collection.problems)
    return collection


def _load_for(study: "Study", args: argparse.Namespace) -> "Collection":
    """Runs as :func:`load` has them.

    Raises:
        InputError: none of them is the study's.
    """
    from sweeps.study.select import FREE, select

    collection = load(args)
    if not len(select(study, collection.runs, dict.fromkeys(study.axes, FREE))):
        how = printed([*study.training, *tree(args.out)])
        raise InputError("study", study.word, f"none of its runs is in {args.out}; make them: {how}")
    return collection


def _warn(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)


def _collect(args: argparse.Namespace) -> int:
    from sweeps.read.collect import write

    collection = load(args)
    states = collection.runs["state"].value_counts()
    found = ", ".join(f"{count} {state}" for state, count in states.items())
    print(f"{len(collection.runs)} runs ({found or 'none'}), {len(collection.epochs)} epochs")
    return written(write(collection, args.out))


def _tables(args: argparse.Namespace) -> int:
    from sweeps.show import explore, tables

    if args.rows or args.cols:
        baseline = choose_study(args).baseline if _names_study(args) else None
        collection = load(args)
        values = args.values or [explore.last_column(collection)]
        table = tables.pivot(collection, args.rows, args.cols, values, baseline=baseline)
        render = {"md": table.to_markdown, "tex": table.to_latex, "csv": table.to_csv}[args.format]
        print(render(), end="")
        return 0
    study = choose_study(args)
    names = _chosen(args.only, list(study.tables))
    collection = _load_for(study, args)
    drawn = [tables.table(study, study.tables[name], collection) for name in names]
    place = folder(args.out, "tables")
    return written([path for table in drawn for path in table.write(place)])


def _figures(args: argparse.Namespace) -> int:
    from sweeps.show import figures

    study = choose_study(args)
    names = _chosen(args.only, list(study.figures))
    collection, stems = load(args), []
    for name in names:
        figure = figures.figure(study, study.figures[name], collection, style=args.style)
        stems.append(figure_stem(args.out, name if args.style == "plain" else f"{name}-{args.style}"))
        figures.save(figure, stems[-1])
    return written([stem.with_name(f"{stem.name}.{suffix}") for stem in stems for suffix in ("png", "svg", "pdf")])


def _fidelity(args: argparse.Namespace) -> int:
    from sweeps.show import fidelity

    study = choose_study(args)
    if study.reference is None or study.reference.curves is None:
        raise InputError("study", study.word, "has no reference.curves to compare with")
    return written(fidelity.write(study, _load_for(study, args), folder(args.out, "tables")))


def _curves(args: argparse.Namespace) -> int:
    from sweeps.read.summary import judged
    from sweeps.show import figures

    collection = load(args)
    metric = args.metric or judged(collection)[0]
    figure = figures.curves(collection, metric=metric, by=args.by)
    by = f"-by-{args.by.replace(',', '-')}" if args.by else ""
    stem = figure_stem(args.out, f"curves-{metric}{by}{_chosen_part(args)}")
    figures.save(figure, stem)
    return written([stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg", "pdf")])


def _heatmap(args: argparse.Namespace) -> int:
    from sweeps.show import explore, figures

    collection = load(args)
    value = args.value or explore.best_column(collection)
    figure = figures.heatmap(collection, x=args.x, y=args.y, value=value)
    stem = figure_stem(args.out, f"heatmap-{value}-{args.x}-{args.y}{_chosen_part(args)}")
    figures.save(figure, stem)
    return written([stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg", "pdf")])


def _importance(args: argparse.Namespace) -> int:
    from sweeps.read.collect import without_formulas
    from sweeps.show import importance

    found = importance.importance(load(args), args.metric)
    print(without_formulas(found).to_csv(index=False) if args.csv else f"{importance.to_text(found)}\n", end="")
    return 0


def _claims(args: argparse.Namespace) -> int:
    from sweeps.judge import text, timing
    from sweeps.judge.hypotheses import evaluate
    from sweeps.show import draw, forest

    study = choose_study(args)
    names = _chosen(args.only, list(study.hypotheses))
    collection = load(args) if timing.path(args.out).exists() else _load_for(study, args)
    findings = [finding for finding in evaluate(study, collection) if finding.name in names]
    markdown = text.to_markdown(study, findings)
    print(text.to_text(findings, args.out) if args.brief else markdown, end="")
    if args.only:
        return 0
    write_atomic(args.out / "claims.md", markdown.encode())
    write_atomic(args.out / "claims.json", text.to_json(study, findings).encode())
    paths = [args.out / "claims.md", args.out / "claims.json"]
    if findings:
        paths += draw.save(forest.forest(findings, study), figure_stem(args.out, "forest"))
    return written(paths)


def _report(args: argparse.Namespace) -> int:
    from sweeps.show import report

    study = choose_study(args) if _names_study(args) else None
    return written([report.write(load(args), args.out, study)])


def _serve(args: argparse.Namespace) -> int:
    from sweeps.read import collect, filters
    from sweeps.show import report, serve
    from sweeps.study import file

    port, words = integer(ge=0, le=65535)("--port", args.port), list(args.filters)
    word = _study_word(args)
    filters.parse(args.filters)
    others = [] if word is None else [file.find(word, _study_folders())]

    def page() -> str:
        args.filters = list(words)
        study = choose_study(args) if _names_study(args) else None
        return report.page(collect.load(args.out, *args.filters, sweep=args.sweep, epochs=args.epochs), study)

    serve.serve(serve.Server(args.host, port, serve.Pages(page, serve.Tree(args.out, others))))
    return 0


def _check(args: argparse.Namespace) -> int:
    from sweeps.judge import training
    from sweeps.study import check

    study = choose_study(args)
    if args.filters:
        raise InputError("argument", args.filters[0], "is unknown here; only study=NAME goes")
    print(check.describe(study), end="")
    line = training.command(study, args.out, training.first_seeds(study))
    print(f"\nto train    {training.describe(line)}\n            {printed([*study.training, *tree(args.out)])}")
    return 0


def _train(args: argparse.Namespace) -> int:
    from sweeps.judge import training
    from sweeps.study.file import MOST_SEEDS

    study = choose_study(args)
    more = args.filters
    if args.until_decided:
        return training.until_decided(study, args.out, print, more)
    seeds = training.first_seeds(study)
    if args.seeds is not None:
        seeds = (*study.seeds.design, *study.seeds.fresh(integer(ge=0, le=MOST_SEEDS)("--seeds", args.seeds)))
    return training.train(training.command(study, args.out, seeds, more=more))


def _export(args: argparse.Namespace) -> int:
    from sweeps.show import export

    options = {"dir": args.dir} if args.to == "tensorboard" else {"uri": args.uri, "experiment": args.experiment}
    try:
        told = export.export(load(args), args.to, say=lambda line: print(f"note: {line}", file=sys.stderr), **options)
    except export.ExportError as error:
        return fail(str(error), 1)
    print(f"{told} runs exported to {args.to}")
    return 0


def _ls(args: argparse.Namespace) -> int:
    from sweeps.show import listing

    collection = load(args)
    runs = listing.select(collection.runs, args.columns or listing.default_columns(collection), args.sort)
    if args.csv:
        from sweeps.read.collect import without_formulas

        print(without_formulas(runs.head(args.limit) if args.limit else runs).to_csv(index=False), end="")
    else:
        listing.print_runs(runs, limit=args.limit, beside=None if args.columns else collection)
    return 0


def _sweeps(args: argparse.Namespace) -> int:
    from sweeps.show import listing

    _warn(listing.print_sweeps(args.out))
    return 0


def _show(args: argparse.Namespace) -> int:
    from sweeps.runs.reading import find
    from sweeps.show import listing

    listing.show(find(args.out, args.name))
    return 0


def _diff(args: argparse.Namespace) -> int:
    from sweeps.runs.reading import find
    from sweeps.show import listing

    listing.diff(*(find(args.out, name) for name in args.names))
    return 0


def _prune(args: argparse.Namespace) -> int:
    from sweeps import keep

    selection = _selected(args)
    outcome = keep.prune(selection, args.keep, force=args.force, dry_run=args.dry_run)
    print(*outcome.lines("would prune" if args.dry_run else "pruned"), sep="\n")
    return int(outcome.failed or (selection.by_name and bool(outcome.kept)))


def _rm(args: argparse.Namespace) -> int:
    from sweeps import keep

    if not args.filters and args.sweep is None:
        raise InputError("run", "", "must be given: names, filters or --sweep")
    selection = _selected(args)
    outcome = keep.remove(selection, force=args.force, dry_run=args.dry_run)
    print(*outcome.lines("would remove" if args.dry_run else "removed"), sep="\n")
    return int(outcome.failed or (selection.by_name and bool(outcome.kept)))


def _selected(args: argparse.Namespace) -> "Selection":
    from sweeps import keep

    selection = keep.select(args.out, args.filters, args.sweep)
    _warn(selection.problems)
    return selection


def _tag(args: argparse.Namespace) -> int:
    from sweeps import keep
    from sweeps.runs import notes

    words = [notes.tag(word) for word in args.tags] if args.change == "tag" else args.tags
    selection = keep.select(args.out, [args.name])
    _warn(selection.problems)
    for chosen in selection.runs:
        notes.edit(chosen, lambda old: old.tagged(words) if args.change == "tag" else old.untagged(words))
    print(f"{len(selection.runs)} run{'s' * (len(selection.runs) != 1)} {args.change}ged")
    return 0


def _note(args: argparse.Namespace) -> int:
    from sweeps import keep
    from sweeps.runs import notes

    one = keep.one(args.out, args.name)
    found = notes.read(one) if args.text is None else notes.edit(one, lambda old: notes.Notes(old.tags, args.text))
    print(*map(printable, found.text.split("\n")), sep="\n")
    return 0


def _watch(args: argparse.Namespace) -> int:
    from sweeps.read.collect import read_manifest
    from sweeps.show import listing

    interval = number(ge=0.1)("--interval", args.interval)
    only = {run["run_id"] for run in read_manifest(args.out, args.sweep)["runs"]} if args.sweep else None
    listing.watch(args.out, only, interval=interval, once=args.once)
    return 0


def _work(args: argparse.Namespace) -> int:
    from sweeps.launch import work

    limit = float("inf") if args.max_time is None else work.seconds("--max-time", args.max_time)
    return work.work(args.out, args.names, workers=args.workers, max_time=limit, trust=args.trust)


def _stop(args: argparse.Namespace) -> int:
    from sweeps.launch import work

    work.stop(args.out, args.names)
    return 0


def _chosen(only: list[str] | None, known: list[str]) -> list[str]:
    for name in only or ():
        if name not in known:
            raise InputError("--only", name, f"must be of {', '.join(known)}")
    return only or known


def choose_study(args: argparse.Namespace) -> "Study":
    """The study that ``study=NAME`` among a command's words names; without one, the only study there is.

    Raises:
        InputError: there is no such study, its file cannot be used, or none is named and there are several.
    """
    from sweeps.study import file

    folders = _study_folders()
    return file.read(_study_word(args) or file.only(folders), folders)


def _study_folders() -> list[Path]:
    return [find() for find in extensions.load(extensions.STUDIES)]


def _study_word(args: argparse.Namespace) -> str | None:
    """What ``study=NAME`` says among a command's words, from which it is taken; None without one."""
    found = [word for word in args.filters if word.startswith("study=")]
    args.filters = [word for word in args.filters if word not in found]
    return found[-1].removeprefix("study=") if found else None


def _names_study(args: argparse.Namespace) -> bool:
    return any(word.startswith("study=") for word in args.filters)


def figure_stem(out: Path, name: str) -> Path:
    """``out``/figures/``name``, without a suffix; a dot or slash in a name would pass for a suffix or a folder."""
    return folder(out, "figures") / name.replace(".", "_").replace("/", "_")


def _chosen_part(args: argparse.Namespace) -> str:
    """Of a figure's name: which runs are on it, as far as they are chosen; short, and the same for the same words."""
    words = sorted(args.filters)
    parts = [*([f"sweep={args.sweep}"] if args.sweep else []), *words]
    text = "-".join(parts)
    name = re.sub(r"[^\w=!,+-]+", "_", text)
    if name != text.replace(".", "_") or len(name) > _LONGEST_PART:  # two choices never have the same name
        name = f"{name[:_LONGEST_PART]}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:6]}"
    epochs = f"-epochs{args.epochs}" if args.epochs is not None else ""
    return (f"-{name}" if name else "") + epochs


_LONGEST_PART = 40


def written(paths: list[Path]) -> int:
    """Name the files that a command wrote, and return its exit status."""
    print(*paths, sep="\n")
    return 0
