"""Train what a study asks for: its program's own command, with the cells and seeds that are needed.

command          the sweep of some cells and seeds, as a command line
train            run it
until_decided    look by look, only what hypotheses that are still open need
"""

import contextlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sweeps.judge.hypotheses import evaluate
from sweeps.read import collect
from sweeps.runs.errors import InputError
from sweeps.study.hypotheses import Settings
from sweeps.study.measures import Time
from sweeps.study.study import Study, Value, written

Say = Callable[[str], None]


def command(
    study: Study, out: Path, seeds: Sequence[int], cells: Sequence[Settings] | None = None, more: Sequence[str] = ()
) -> list[str]:
    """The command line that trains these seeds of the study's runs.

    Args:
        cells: only these of them; None for all.
        more: further overrides.
    """
    program = [sys.executable if word in ("python", "python3") else word for word in shlex.split(study.command)]
    seed = f"{study.seeds.key}={','.join(map(str, seeds))}"
    where = [] if cells is None else [f"hydra.sweeper.where={_quoted(_condition(study, cells))}"]
    return [*program, "--multirun", *study.runs, seed, *where, f"{study.out}={_quoted(str(out))}", *more]


def _condition(study: Study, cells: Sequence[Settings]) -> str:
    """True of these cells among the study's runs, in the words of a grid's ``where``."""
    rows = [[_trained(study, key, study.complete(cell)[key]) for key in study.axes] for cell in cells]
    return f"[{', '.join(study.axes)}] in {rows!r}"


def _trained(study: Study, key: str, value: Value) -> Value:
    """The value as the command line has it."""
    return study.axis(key).train.get(written(value), value)


def _quoted(text: str) -> str:
    """In double quotes, as Hydra's command line takes any text."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def train(line: Sequence[str]) -> int:
    """Run the command and return its exit status: 0 all finished, 1 some failed, more if it was interrupted.

    Ctrl-C reaches the sweep by itself, SIGTERM is passed on; either way, wait for it, so that nothing is lost.

    Raises:
        InputError: it cannot be started.
    """
    try:
        process = subprocess.Popen(line)
    except OSError as error:
        raise InputError("train", line[0], f"cannot be started: {error.strerror}") from None
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while process.returncode is None:
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def describe(line: Sequence[str]) -> str:
    """What a sweep would do, from its dry run.

    Raises:
        InputError: the program refuses it; the message is its own.
    """
    try:
        done = subprocess.run([*line, "--dry-run"], check=False, capture_output=True, text=True)
    except OSError as error:
        raise InputError("train", line[0], f"cannot be started: {error.strerror}") from None
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or f"ended with status {done.returncode}").splitlines()
        raise InputError("train", shlex.join(line), reason[-1].removeprefix("error: "))
    return next(iter(done.stdout.splitlines()), "")


def first_seeds(study: Study) -> tuple[int, ...]:
    """Those for design, and the fresh ones of the first look."""
    return (*study.seeds.design, *study.seeds.fresh(study.seeds.looks[0]))


def until_decided(study: Study, out: Path, say: Say, more: Sequence[str] = ()) -> int:
    """Train look by look until no hypothesis is open, or the last look is reached.

    Args:
        say: called before each look with what it will train and cost.

    Returns:
        The highest exit status of the sweeps; one above 1 ends it.
    """
    last = study.seeds.looks[-1]
    whole = command(study, out, (*study.seeds.design, *study.seeds.fresh(last)), more=more)
    say(f"At most, with every hypothesis open until the last look, at {last} fresh seeds:")
    say(f"  {describe(whole)}")
    status = 0
    for number, look in enumerate(study.seeds.looks, start=1):
        if number == 1:
            line = command(study, out, first_seeds(study), more=more)
        else:
            cells = open_cells(study, out)
            if not cells:
                say("Every hypothesis is decided, or no look will decide it.")
                break
            line = command(study, out, study.seeds.fresh(look), cells, more)
        say(f"Look {number} of {len(study.seeds.looks)}, at {look} fresh seeds:")
        status = max(status, train(line))
        if status > 1:
            break
    return status


def open_cells(study: Study, out: Path) -> list[Settings]:
    """The cells of the hypotheses that more seeds may decide."""
    collection = collect.load(out)
    needed: dict[str, Settings] = {}
    for finding in evaluate(study, collection):
        hypothesis = study.hypotheses[finding.name]
        if finding.next_look is not None and not isinstance(hypothesis.measure, Time):
            needed |= {study.label(cell): cell for cell in hypothesis.cells}
    return list(needed.values())
