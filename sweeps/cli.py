"""``python -m sweeps COMMAND``: collect runs, draw and tabulate them, check conclusions, look at runs, tidy up.

Exit status: 0 done, 1 a run or file cannot be read, 2 unusable input, 130 interrupted by Ctrl-C.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sweeps.read import extensions
from sweeps.runs.command import fail, run
from sweeps.runs.errors import InputError
from sweeps.runs.files import folder, write_atomic
from sweeps.runs.schema import number

if TYPE_CHECKING:
    from sweeps.keep import Selection
    from sweeps.read.collect import Collection

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
        status: int = args.run(args)
        return status

    return run(command)


# ---------------------------------------------------------------------------------------------------------- arguments


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sweeps", description="Read collected runs back.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Command, summary: str, *, filters: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(run=run, filters=[] if filters else None)
        sub.add_argument("--out", type=Path, default=Path("outputs"), metavar="DIR", help="results tree (outputs)")
        if filters:
            sub.add_argument("filters", nargs="*", metavar="FILTER", help="activ=relu,gelu  'lr<=0.01'  state!=failed")
            sub.add_argument("--sweep", metavar="NAME", help="only this sweep's runs")
            sub.add_argument("--epochs", type=int, metavar="N", help="every run as of epoch N")
        return sub

    command("collect", _collect, "runs and epochs as Parquet and CSV in DIR")
    sub = command("tables", _tables, "the report's tables, in DIR/tables; or, with --rows and --cols, any comparison")
    sub.add_argument("--only", type=_comma_list, metavar="NAMES", help="of table1,table2,lr,wd,mo")
    sub.add_argument("--rows", type=_comma_list, default=[], metavar="KEYS", help="e.g. activ")
    sub.add_argument("--cols", type=_comma_list, default=[], metavar="KEYS", help="e.g. model,optim")
    sub.add_argument("--values", type=_comma_list, metavar="METRICS", help="(test_acc, or what the runs judge by)")
    sub.add_argument("--format", choices=("md", "tex", "csv"), default="md", help="of a comparison (md)")
    sub = command("figures", _figures, "the report's figures 1 to 8, in DIR/figures")
    sub.add_argument("--only", type=_comma_list, metavar="NUMBERS", help="e.g. 5,6")
    sub = command("curves", _curves, "any metric over the epochs, in DIR/figures")
    sub.add_argument("--metric", help="(what the runs judge by)")
    sub.add_argument("--by", metavar="KEYS", help="one curve for each value of these, e.g. lr (all that vary)")
    sub = command("heatmap", _heatmap, "any run metric over two keys, in DIR/figures")
    sub.add_argument("--x", required=True, metavar="KEY")
    sub.add_argument("--y", required=True, metavar="KEY")
    sub.add_argument("--value", metavar="METRIC", help="(the best of what the runs judge by)")
    sub = command("claims", _claims, "the report's conclusions, checked, in DIR/claims.md and .json")
    sub.add_argument("--only", type=_comma_list, metavar="NAMES")
    sub.add_argument("--brief", action="store_true", help="a line for each")
    command("report", _report, "everything on one page, DIR/report/index.html")
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
    sub = command("show", _show, "one run: configuration, status, metrics, provenance", filters=False)
    sub.add_argument("name", metavar="RUN", help="id, its beginning, or a path")
    sub = command("diff", _diff, "two runs: where they differ, and their metrics", filters=False)
    sub.add_argument("names", nargs=2, metavar="RUN")
    _add_keeping(command)
    sub = command("watch", _watch, "the running runs, live, until Ctrl-C", filters=False)
    sub.add_argument("--sweep", metavar="NAME", help="only this sweep's runs")
    sub.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="between updates (1)")
    sub.add_argument("--once", action="store_true", help="show it once")

    for add in extensions.load(extensions.COMMANDS):
        add(command)

    args, rest = parser.parse_known_args(_joined(argv))
    if rest and (args.filters is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    if rest:  # filters that came after an option
        args.filters += rest
    return args


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
    from sweeps.read.summary import has_networks
    from sweeps.show import explore, tables

    if args.rows or args.cols:
        collection = load(args)
        is_usual = has_networks(collection.runs) and "test_acc" in collection.runs
        usual = ["test_acc"] if is_usual else [explore.last_column(collection)]
        table = tables.pivot(collection, args.rows, args.cols, args.values or usual)
        render = {"md": table.to_markdown, "tex": table.to_latex, "csv": table.to_csv}[args.format]
        print(render(), end="")
        return 0
    names = _chosen(args.only, list(tables.TABLES))
    collection = _of_report(load(args), "tables", "; --rows and --cols make tables of any runs")
    return written(
        [path for name in names for path in tables.TABLES[name](collection).write(folder(args.out, "tables"))]
    )


def _figures(args: argparse.Namespace) -> int:
    from sweeps.show import figures

    numbers = _chosen(args.only, [str(number) for number in figures.FIGURES])
    collection = _of_report(load(args), "figures", "; curves and heatmap draw any runs")
    stems = []
    for figure in numbers:
        stems.append(figure_stem(args.out, f"fig{figure}"))
        figures.save(figures.FIGURES[int(figure)](collection), stems[-1])
    return written([stem.with_name(f"{stem.name}.{suffix}") for stem in stems for suffix in ("png", "svg", "pdf")])


def _curves(args: argparse.Namespace) -> int:
    from sweeps.read.summary import judged
    from sweeps.show import figures

    collection = load(args)
    metric = args.metric or judged(collection)[0]
    figure = figures.curves(collection, metric=metric, by=args.by)
    stem = figure_stem(args.out, f"curves-{metric}" + (f"-by-{args.by.replace(',', '-')}" if args.by else ""))
    figures.save(figure, stem)
    return written([stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg", "pdf")])


def _heatmap(args: argparse.Namespace) -> int:
    from sweeps.show import explore, figures

    collection = load(args)
    value = args.value or explore.best_column(collection)
    figure = figures.heatmap(collection, x=args.x, y=args.y, value=value)
    stem = figure_stem(args.out, f"heatmap-{value}-{args.x}-{args.y}")
    figures.save(figure, stem)
    return written([stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg", "pdf")])


def _claims(args: argparse.Namespace) -> int:
    from sweeps.judge import claims

    names = _chosen(args.only, list(claims.CLAIMS))
    collection = _of_report(load(args), "claims")
    chosen = [claim for claim in claims.evaluate(collection) if claim.name in names]
    markdown = claims.to_markdown(chosen)
    print(claims.to_text(chosen) if args.brief else markdown, end="")
    if args.only:
        return 0
    write_atomic(args.out / "claims.md", markdown.encode())
    write_atomic(args.out / "claims.json", claims.to_json(chosen).encode())
    return written([args.out / "claims.md", args.out / "claims.json"])


def _report(args: argparse.Namespace) -> int:
    from sweeps.show import report

    return written([report.write(load(args), args.out)])


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
        print((runs.head(args.limit) if args.limit else runs).to_csv(index=False), end="")
    else:
        listing.print_runs(runs, limit=args.limit)
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
    from sweeps.runs.reading import printable

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


def _chosen(only: list[str] | None, known: list[str]) -> list[str]:
    for name in only or ():
        if name not in known:
            raise InputError("--only", name, f"must be of {', '.join(known)}")
    return only or known


def _of_report(collection: "Collection", what: str, instead: str = "") -> "Collection":
    """The collection, if it has runs of the report's networks or none at all.

    Raises:
        InputError: all runs are of other programs.
    """
    from sweeps.read.summary import has_networks

    if len(collection.runs) and not has_networks(collection.runs):
        raise InputError(what, f"{len(collection.runs)} runs", f"none is of the report's networks{instead}")
    return collection


def figure_stem(out: Path, name: str) -> Path:
    """``out``/figures/``name``, without a suffix; a dot or slash in a name would pass for a suffix or a folder."""
    return folder(out, "figures") / name.replace(".", "_").replace("/", "_")


def written(paths: list[Path]) -> int:
    """Name the files that a command wrote, and return its exit status."""
    print(*paths, sep="\n")
    return 0
