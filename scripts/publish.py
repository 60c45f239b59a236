"""Copy a study's products, and all runs of a results tree without their networks, into a folder.

    python scripts/publish.py OUT FOLDER [STUDY]

With the runs a reader draws everything again: ``tar xf runs.tar.xz -C DIR``, then any command with ``--out DIR``.
"""

import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import sweeps
from sweeps.study.file import read
from sweeps.study.study import Study

_FACTS = ("cpu", "blas", "python", "numpy", "git_commit")


def publish(out: Path, folder: Path, study: Study) -> None:
    """Renew the folder from ``out``; what else is in the folder stays."""
    runs = sweeps.load(out).runs.drop(columns=["path", "host"])
    for name in ("tables", "figures"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    for path in _products(out, study):
        shutil.copy(path, folder / path.relative_to(out))
    runs.to_csv(folder / "runs.csv", index=False)
    pd.read_parquet(out / "epochs.parquet").to_parquet(folder / "epochs.parquet", compression="zstd", index=False)
    _pack(out, runs["run"], folder / "runs.tar.xz")
    (folder / "README.md").write_text("\n".join(_page(folder, study, runs)) + "\n")


def _products(out: Path, study: Study) -> Iterator[Path]:
    yield from (out / name for name in ("claims.md", "claims.json", "timing.json"))
    yield from (out / "tables" / f"{name}.{kind}" for name in (*study.tables, "fidelity") for kind in ("md", "csv"))
    yield from (out / "figures" / f"{name}.{kind}" for name in study.figures for kind in ("png", "svg"))
    yield out / "figures" / "forest.svg"
    yield from (out / "figures" / f"{name}-report.png" for name in study.figures)


_RUN = ("config.yaml", "provenance.json", "status.json", "metrics.csv", "steps.csv", "stats.csv", "items.npz")


def _pack(out: Path, runs: "pd.Series[str]", archive: Path) -> None:
    """The runs without their networks, locks and logs; the same runs give the same bytes."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    names = ["timing.json", *(f"runs/{run}/{name}" for run in sorted(runs) for name in _RUN)]
    with tarfile.open(archive, "w:xz") as packed:
        for name in names:
            if (out / name).exists():
                packed.add(out / name, name, filter=plain)


def _page(folder: Path, study: Study, runs: pd.DataFrame) -> Iterator[str]:
    states = Counter(runs["state"])
    seeds = sorted(runs[study.seeds.key].unique())
    facts = {
        "runs": f"{len(runs)}: " + ", ".join(f"{count} {state}" for state, count in states.items()),
        "epochs": f"{runs['epoch'].min()} to {runs['epoch'].max()}",
        "seeds": ", ".join(f"{seed} (design)" if seed in study.seeds.design else str(seed) for seed in seeds),
        "trained": f"{runs['started'].min()[:10]} to {runs['updated'].max()[:10]}",
    }
    facts |= {name: ", ".join(map(str, runs[name].dropna().unique())) for name in _FACTS}
    yield from (f"# Results: {study.title}", "", "Made by `scripts/reproduce`, put here by `scripts/publish`.", "")
    yield from ("| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items()), "")
    yield "- [claims.md](claims.md): the hypotheses with their verdicts (also as JSON)"
    yield "- [forest plot](figures/forest.svg): each comparison with its interval, and a dot for each seed"
    yield "- [fidelity](tables/fidelity.md): how near our curves are to the course report's"
    yield "- [runs.csv](runs.csv): a row for each run; `epochs.parquet`: a row for each epoch"
    yield "- [timing.json](timing.json): what the hypotheses about time rest on"
    yield "- `runs.tar.xz`: the runs without their networks. To draw all of this again, without training:"
    yield from ("", "  ```bash", "  mkdir again", "  tar xf docs/results/runs.tar.xz -C again")
    yield from ("  mlp-sweeps figures study=report --out again", "  ```", "")
    yield "  and to go on with more seeds: `mlp-sweeps train study=report --until-decided --out again`"
    for name in study.tables:
        yield from ("", (folder / "tables" / f"{name}.md").read_text().strip())
    yield from ("", "Each figure, then the same as the course report draws it:")
    for name, figure in study.figures.items():
        yield from ("", f"![{figure.caption or name}](figures/{name}.png)", f"![{name}](figures/{name}-report.png)")


if __name__ == "__main__":
    out, folder, *word = sys.argv[1:]
    publish(Path(out), Path(folder), read(*word or ["report"]))
