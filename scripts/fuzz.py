"""Coverage-guided fuzzing of everything that reads a file or a word from outside, by Atheris (extra ``fuzz``).

    python scripts/fuzz.py                          every target for 60 s each
    python scripts/fuzz.py npz where --seconds 600  two of them, longer
    python scripts/fuzz.py npz --input FILE         once, on what was found

A target may return, or raise the errors that its reader documents. Any other exception, 5 s for one input or 1 GB of
memory is a finding: its input is kept under --work, and the exit status is 1. The corpus begins with real files,
made by a short training run, and stays under --work too, so a second call continues the first.
"""

import argparse
import contextlib
import gzip
import io
import itertools
import json
import logging
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

Seeds = Iterable[bytes]
Target = Callable[[bytes], object]

SEARCH = {
    "name": "s", "method": "tpe", "metrics": ["valid_acc"], "directions": ["maximize"],
    "space": [{"key": "lr", "low": 0.01, "high": 0.1, "step": None, "log": True}, {"key": "activ", "values": ["relu"]}],
    "total": 2, "definition": {"method": "tpe"},
    "trials": [
        {"number": 0, "params": {"lr": 0.05, "activ": "relu"}, "state": "finished", "values": [97.5],
         "rungs": [[1, 96.0], [3, 97.5]], "runs": [["relu-ce-8-0123456789", 3]], "error": None},
        {"number": 1, "params": {"lr": 0.02, "activ": "relu"}, "state": "failed", "values": None,
         "rungs": [], "runs": [], "error": "killed"},
    ],
}  # fmt: skip
MANIFEST = {"name": "s", "created": "t", "updated": "t", "command": ["a"], "runs": [{"run_id": "a", "overrides": ["lr=1"], "epochs": 3}]}  # fmt: skip # noqa: E501


class Fuzzing:
    """The targets, by name: a method that gives its seeds and what takes one input. A folder is theirs to write in.

    Compressed and checksummed containers keep mutations out, so the first byte of such an input says whether the
    rest is the container itself, or what a correct one is made of here.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np

        from mlp.composition import compose
        from mlp.training import train
        from sweeps.runs.directory import RunDir

        self.folder = folder
        rng = np.random.default_rng(0)
        self.arrays = {
            "x_train": rng.integers(0, 256, (12, 4), np.uint8), "y_train": np.arange(12) % 3,
            "x_test": rng.integers(0, 256, (6, 4), np.uint8), "y_test": np.arange(6) % 3,
        }  # fmt: skip
        np.savez(folder / "data.npz", **self.arrays)
        self.config = compose(
            "data=npz", f"data.path={folder / 'data.npz'}", "model.hidden=[8]", "bsz=4", "epochs=2", "threads=1",
            "stats=true", f"out={folder / 'out'}",
        )  # fmt: skip
        self.run = RunDir(train(self.config).path)

    def idx(self) -> tuple[Seeds, Target]:
        from mlp.formats import IDX_FILES, blame, canonical, read_idx_files
        from sweeps.runs.errors import InputError

        folder = self._made("idx")

        def read(data: bytes) -> None:
            body = gzip.compress(data[1:], 1) if data[:1] == b"\1" else data[1:]
            for i, file in enumerate(IDX_FILES.values()):
                for ending in ("", ".gz"):
                    (folder / f"{file}{ending}").unlink(missing_ok=True)
                (folder / f"{file}.gz" if data[:1] in (b"\1", b"\2") else folder / file).write_bytes(body)
                (folder / file).write_bytes(labels if i % 2 and data[:1] == b"\3" else body)
            with contextlib.suppress(InputError), blame("data.path", "…"):
                canonical(read_idx_files(folder), 10)

        labels = bytes((0, 0, 8, 1, 0, 0, 0, 2, 1, 0))
        images = bytes((0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 9, 8, 7, 6))
        return [
            *(mode + images for mode in (b"\0", b"\1", b"\3")), b"\0" + labels, b"\2" + gzip.compress(images)
        ], read  # fmt: skip

    def cifar(self) -> tuple[Seeds, Target]:
        from mlp.formats import CIFAR10_FILES, blame, canonical, read_record_files, read_record_tar
        from sweeps.runs.errors import InputError

        folder = self._made("cifar")

        def tar(body: bytes) -> bytes:
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
                for file in CIFAR10_FILES:
                    info = tarfile.TarInfo(f"cifar-10-batches-bin/{file}")
                    info.size = len(body)
                    archive.addfile(info, io.BytesIO(body))
            return buffer.getvalue()

        def read(data: bytes) -> None:
            mode, body = data[:1], data[1:]
            with contextlib.suppress(InputError), blame("data.path", "…"):
                if mode == b"\0":
                    for file in CIFAR10_FILES:
                        (folder / file).write_bytes(body)
                    canonical(read_record_files(folder), 10)
                else:
                    packed = {b"\1": lambda: tar(body), b"\2": lambda: gzip.compress(body, 1)}.get(mode, lambda: body)
                    path = folder / "cifar.tar.gz"
                    path.write_bytes(packed())
                    canonical(read_record_tar(path), 10)

        record = bytes([3]) + bytes(3072)
        return [b"\0" + record, b"\1" + record, b"\2" + gzip.decompress(tar(record)), b"\3" + tar(record)], read

    def npz(self) -> tuple[Seeds, Target]:
        from mlp.formats import blame, canonical, read_npz
        from sweeps.runs.errors import InputError

        path = self.folder / "fuzzed.npz"

        def read(data: bytes) -> None:
            path.write_bytes(npz_of(data, self.arrays))
            with contextlib.suppress(InputError), blame("data.path", "…"):
                canonical(read_npz(path), None)

        return npz_seeds(self.folder / "data.npz"), read

    def npy(self) -> tuple[Seeds, Target]:
        """Headers of arrays. A MemoryError is a finding: it could not be told from the machine's own."""
        from sweeps.runs.npy import UNREADABLE, opened_npz, read_npy

        def read(data: bytes) -> None:
            header = repeated(data[1:])
            version = 1 + data[0] % 3 if data else 1
            size = (len(header) % 2**16).to_bytes(2, "little") if version == 1 else len(header).to_bytes(4, "little")
            content = b"\x93NUMPY" + bytes([version, 0]) + size + header + bytes(8)
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr("a.npy", content)
            try:
                with opened_npz(buffer, buffer.tell()) as archive:
                    read_npy(archive, "a", "biufcU")
            except MemoryError:
                raise
            except UNREADABLE:
                pass

        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }"
        hostile = (b"\n-\n1", b"\n(\n1", b"{'descr': \nnot \n1}")
        return [b"\0" + header, *(bytes([mode]) + b"\xff\x20" + text for mode in (0, 1) for text in hostile)], read

    def cache(self) -> tuple[Seeds, Target]:
        from sweeps.read.collect import load

        out = self.config.out
        load(out)
        path = out / ".collect" / "runs.npz"
        seeds = npz_seeds(path)

        def read(data: bytes) -> None:
            path.write_bytes(npz_of(data, ("records", "epochs")))
            found = load(out)
            assert len(found.runs) == 1, found.problems

        return seeds, read

    def numbers(self) -> tuple[Seeds, Target]:
        """Values of a network's configuration, from the check to the tables."""
        import numpy as np
        import yaml

        from mlp.columns import columns
        from mlp.config import RunConfig
        from mlp.training import cost
        from sweeps.runs.errors import InputError
        from sweeps.runs.reading import check_events

        plain = {
            "model": {"hidden": [8], "init_std": 0.01}, "activ": {"name": "relu"}, "optim": {"name": "sgd"},
            "loss": {"name": "hinge", "margin": 0.05}, "data": self.config.data.as_dict(), "lr": 0.1, "wd": 0.0,
            "mo": 0.0, "bsz": 4, "seed": 0, "dtype": "float32", "eval_train": "running", "epochs": 1,
            "out": str(self.config.out), "checkpoint_every": 1, "threads": 1, "stats": False,
            "tracker": {"name": "none"},
        }  # fmt: skip

        def read(data: bytes) -> None:
            try:
                check_events(repeated(data))  # libyaml's loader recurses, and crashes
                changes = yaml.load(repeated(data), yaml.CSafeLoader)
                changed = {**plain, **changes}
            except (ValueError, TypeError, yaml.YAMLError, RecursionError):
                return
            with contextlib.suppress(InputError):
                config = RunConfig.from_mapping(changed)
                found = columns(config.identity)
                np.array([found["bsz"], found["seed"], config.epochs, config.checkpoint_every], np.int64)
                cost(config) * config.epochs

        words = (
            b"bsz: 1\n0\n",
            b"epochs: 1\n0\n",
            b"seed: \n9\n",
            b"lr: 1\n0\n.0",
            b"model: {hidden: [1\n0\n], init_std: 1}",
        )
        return [b"bsz: 7", *(b"\x30\x00" + word for word in words)], read

    def checkpoint(self) -> tuple[Seeds, Target]:
        from mlp.data import load
        from mlp.model import load as load_model
        from mlp.model import read_parameters
        from mlp.trainer import Trainer
        from mlp.training import state
        from sweeps.runs import checkpoint
        from sweeps.runs.errors import DamagedRun, InputError
        from sweeps.runs.state import restore

        path = self.run.checkpoint
        seeds = npz_seeds(path)
        trainer = Trainer(self.config, load(self.config.data.name, self.config.data.options))
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]

        def read(data: bytes) -> None:
            content = npz_of(data, names)  # sealed, so that what follows is reached as well
            path.write_bytes(checkpoint._seal(content, self.run.path.name) if content[-2:] == b"\0\0" else content)
            with contextlib.suppress(DamagedRun, InputError):
                restore(state(trainer.network, trainer.optimizer), checkpoint.load(path)[0])
            with contextlib.suppress(DamagedRun):
                read_parameters(path)
            with contextlib.suppress(DamagedRun, InputError):
                load_model(self.run)

        return seeds, read

    def identity(self) -> tuple[Seeds, Target]:
        import yaml

        from mlp.config import network_parts
        from sweeps.read.record import read as read_record
        from sweeps.runs.directory import RunDir
        from sweeps.runs.errors import DamagedRun, InputError
        from sweeps.runs.identity import digest
        from sweeps.runs.reading import check_events, read_identity

        def fitting(data: bytes) -> str:
            """The directory's name that would fit, so that what follows is reached as well."""
            try:
                check_events(data)
                identity = yaml.safe_load(data)
                return f"{identity['activ']['name']}-{identity['loss']['name']}-8-{digest(identity)[:10]}"
            except Exception:
                return ""

        def read(data: bytes) -> None:
            name = fitting(data)
            usable = name.isprintable() and "/" not in name and len(name) < 100
            run = RunDir(self._made(name if usable and name else "relu-ce-8-0123456789"))
            run.config.write_bytes(data)
            run.status.write_bytes(status)
            with contextlib.suppress(DamagedRun):
                identity = read_identity(run)
                with contextlib.suppress(InputError):
                    network_parts(identity)
            with contextlib.suppress(DamagedRun):
                read_record(run)
            for path in run.path.iterdir():
                path.unlink()
            run.path.rmdir()

        status = self.run.status.read_bytes()
        return [self.run.config.read_bytes(), b"activ: {name: relu}\nloss: {name: ce}\n"], read

    def run_files(self) -> tuple[Seeds, Target]:
        from mlp import stats
        from sweeps.read.collect import load
        from sweeps.runs.errors import DamagedRun

        run = self.run
        files = (run.status, run.metrics, run.path / "stats.csv", run.provenance)
        real = {path: path.read_bytes() for path in files}

        def read(data: bytes) -> None:
            path = files[data[0] % len(files)] if data else files[0]
            path.write_bytes(data[1:])
            for reader in (run.read_status, run.read_metrics, lambda: stats.read(run), lambda: run.result(2)):
                with contextlib.suppress(DamagedRun):
                    reader()
            load(self.config.out)
            if path == run.provenance:
                run.add_provenance({})
            path.write_bytes(real[path])

        return [bytes([i]) + content for i, content in enumerate(real.values())], read

    def steps(self) -> tuple[Seeds, Target]:
        """steps.csv, as the table of all runs has it. A status without checksums vouches for no content."""
        from sweeps.read.collect import load

        status = json.loads(self.run.status.read_text())
        self.run.status.write_text(json.dumps({k: v for k, v in status.items() if k not in ("sha256", "checksums")}))
        found = load(self.config.out)

        def read(data: bytes) -> None:
            self.run.steps.write_bytes(data)
            table = found.steps()
            assert not table.duplicated(["run", "epoch", "step"]).any(), table

        return [self.run.steps.read_bytes(), b"epoch,step,metric,value\n1,1,a,nan\n1,2,b,-1e400\n2,1,a,1\n"], read

    def items(self) -> tuple[Seeds, Target]:
        """items.npz: numbers as they are, booleans as bits and a count."""
        import numpy as np

        from sweeps.read.collect import load
        from sweeps.runs import outcomes
        from sweeps.runs.errors import InputError

        outcomes.save(self.run, 2, {"right": np.arange(11) % 3 == 0, "answer": np.arange(11), "loss": np.ones(11)})
        seeds = npz_seeds(self.run.items)
        with zipfile.ZipFile(self.run.items) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
        found = load(self.config.out)

        def read(data: bytes) -> None:
            self.run.items.write_bytes(npz_of(data, names))
            for name in ("right", "answer", "loss"):
                with contextlib.suppress(InputError):
                    assert len(found.items(name)) <= 1

        return seeds, read

    def notes(self) -> tuple[Seeds, Target]:
        """notes.json, whose damage is no reason to leave the run out."""
        from sweeps.read.record import read as read_record
        from sweeps.runs import notes

        path = notes.path_of(self.run)

        def read(data: bytes) -> None:
            path.write_bytes(data)
            assert (read_record(self.run).row["note"] or "").isprintable()

        return [b'{"tags": ["a", "b"], "text": "what I think\\n\\u00e9"}'], read

    def manifest(self) -> tuple[Seeds, Target]:
        from mlp.training import spec_of
        from sweeps.launch.job import Job
        from sweeps.launch.manifest import Manifest
        from sweeps.read.collect import read_manifest
        from sweeps.runs.errors import InputError

        out = self._made("tree")
        path = self._made("tree/sweeps/s") / "manifest.json"
        job = Job(("lr=1",), spec_of(self.config))

        def read(data: bytes) -> None:
            path.write_bytes(data)
            with contextlib.suppress(InputError):
                read_manifest(out, "s")
            Manifest(out, "s").add([job], ["command"])

        return [json.dumps(MANIFEST).encode()], read

    def search(self) -> tuple[Seeds, Target]:
        from sweeps.runs.errors import InputError
        from sweeps.search.record import FILE, read

        folder = self._made("search")

        def target(data: bytes) -> None:
            (folder / FILE).write_bytes(data)
            with contextlib.suppress(InputError):
                found = read(folder)
                if found is not None:
                    found.ranked(), found.epochs(), replace(found, definition={}).write(folder)

        return [json.dumps(SEARCH).encode()], target

    def where(self) -> tuple[Seeds, Target]:
        from sweeps.runs.conditions import holds
        from sweeps.runs.errors import InputError

        point = {"lr": 0.1, "model": "mlp1", "activ.name": "relu", "seed": 3, "model.hidden": [16], "stats": False}
        extremes = ((1e308, 10**400), (float("inf"), -(10**400)), (float("nan"), 2**63), (5e-324, True), (None, "x"))
        points = [point, *(point | {"lr": lr, "seed": seed} for lr, seed in extremes)]

        def target(data: bytes) -> None:
            for each in points:
                with contextlib.suppress(InputError):
                    holds(data.decode("utf-8", "surrogateescape"), each)

        words = ("lr <= 0.01 or model == 'mlp2'", "not seed in [1, 2] and lr * 2 / 3 - -1 < 4", "activ.name != 'gelu'")
        words += ("seed / 3 * lr < 1e308", "seed<1e400", "lr=1e400,nan", "seed - lr in [1e308 * 10]")
        return [*map(str.encode, words), b"model.hidden == [16]"], target

    def filters(self) -> tuple[Seeds, Target]:
        import pandas as pd

        from sweeps.read import filters
        from sweeps.runs.errors import InputError

        table = pd.DataFrame({"activ": ["relu", None], "lr": [0.1, float("nan")], "seed": [1, 2], "b": [True, False]})

        def target(data: bytes) -> None:
            with contextlib.suppress(InputError):
                filters.apply(table, filters.parse([data.decode("utf-8", "surrogateescape")]))

        return [b"activ=relu,gelu lr<=0.01", b"seed!=1", b"'activ=a b' b=1", b"lr>1e-3"], target

    def grid(self) -> tuple[Seeds, Target]:
        import yaml
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException

        from sweeps.launch.grid import Grids
        from sweeps.runs.errors import InputError

        parser = OverridesParser.create()

        def target(data: bytes) -> None:
            line, _, text = data.partition(b"\n")
            try:
                words = line.decode().split("|")
                grids = yaml.load(text, yaml.CSafeLoader)
            except (ValueError, yaml.YAMLError, RecursionError):
                return
            with contextlib.suppress(InputError, HydraException):
                list(itertools.islice(Grids(parser, grids).points([word for word in words if word]), 1000))

        zipped = b"[{activ: [relu, gelu], zip: {model: [mlp1, mlp2], epochs: [30, 60]}, where: lr < 0.1}]"
        return [
            b"lr=0.1,0.01|seed=range(0,3)\n" + zipped,
            b"\na: {lr: '0.1,0.2', wd: [0, null, 'a b']}",
            b"~lr\n",
        ], target

    def _made(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def repeated(data: bytes) -> bytes:
    """With the text between the first two line ends as often as the first two bytes say, if there are any: what is
    long or nested deeply is beyond mutations."""
    before, first, rest = data[2:].partition(b"\n")
    again, second, after = rest.partition(b"\n")
    return before + again * int.from_bytes(data[:2], "little") + after if first and second else data


def npz_seeds(path: Path) -> Seeds:
    """The file as it is, and its members, each after its length."""
    with zipfile.ZipFile(path) as archive:
        members = [archive.read(name) for name in archive.namelist()]
    packed = b"".join(len(member).to_bytes(2, "little") + member for member in members)
    return [b"\0" + path.read_bytes(), b"\1" + packed, b"\2" + packed]


def npz_of(data: bytes, names: Iterable[str]) -> bytes:
    mode, data = data[:1], data[1:]
    if mode not in (b"\1", b"\2"):
        return data
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if mode == b"\2" else zipfile.ZIP_STORED) as archive:
        for name in names:
            size = int.from_bytes(data[:2], "little")
            archive.writestr(f"{name}.npy", data[2 : 2 + size])
            data = data[2 + size :]
    return buffer.getvalue()


TARGETS = (
    "idx",
    "cifar",
    "npz",
    "npy",
    "checkpoint",
    "cache",
    "numbers",
    "identity",
    "run_files",
    "steps",
    "items",
    "notes",
    "manifest",
    "search",
    "where",
    "filters",
    "grid",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--work", type=Path, default=Path("fuzz"), help="folder of corpora and findings (fuzz)")
    parser.add_argument("--input", type=Path, help="run the one target on this file alone")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; known: {', '.join(TARGETS)}")
    if args.input and len(args.targets) != 1:
        parser.error("--input wants one target")
    if args.child:
        fuzz(args.targets[0], args.seconds, args.work)
    if args.input:
        with target_of(args.targets[0]) as (_, target):
            target(args.input.read_bytes())
        return 0
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("error: fuzzing needs Atheris: pip install 'mlp-sweeps[fuzz]'", file=sys.stderr)
        return 2
    return max(watch(name, args.seconds, args.work.absolute()) for name in args.targets or TARGETS)


def watch(name: str, seconds: int, work: Path) -> int:
    """Fuzz in a separate process, which a finding ends; returns one line of result."""
    command = [sys.executable, __file__, name, "--child", f"--seconds={seconds}", f"--work={work}"]
    child = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    executions = re.findall(r"^#(\d+)|number_of_executed_units: (\d+)", child.stdout, re.MULTILINE)
    reached = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", child.stdout)
    coverage = "coverage {}, features {}, corpus {}".format(*reached[-1]) if reached else "no coverage"
    print(f"{name:11} {''.join(executions[-1]) if executions else 0:>9} executions, {coverage}: ", end="")
    print("nothing found" if child.returncode == 0 else f"a finding (exit status {child.returncode})", flush=True)
    if child.returncode:
        lines = [line for line in child.stdout.splitlines() if not line.startswith(("#", "stat::", "INFO: "))]
        print("\n".join(f"    {line}" for line in lines[-30:]), flush=True)
    return int(child.returncode != 0)


@contextlib.contextmanager
def target_of(name: str) -> Iterator[tuple[Seeds, Target]]:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        yield getattr(Fuzzing(Path(folder)), name)()


def fuzz(name: str, seconds: int, work: Path) -> None:
    """Does not return."""
    import atheris

    logging.disable()  # what is damaged is named, with each input
    corpus, findings = work / name / "corpus", work / name / "findings"
    for path in (corpus, findings):
        path.mkdir(parents=True, exist_ok=True)
    with (
        atheris.instrument_imports(include=["mlp", "sweeps", "yaml", "hydra.core.override_parser"]),
        target_of(name) as (seeds, target),
    ):
        for i, seed in enumerate(seeds):
            (corpus / f"seed-{i}").write_bytes(seed)
        options = [
            f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=1024", "-max_len=8192",
            "-print_final_stats=1", f"-artifact_prefix={findings}/",
        ]  # fmt: skip
        atheris.Setup([sys.argv[0], *options, str(corpus)], target)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
