"""A command of the docs, made short enough for a test: few epochs, trials and rounds; everything else as it is written.

``tests/test_docs.py`` puts this on PATH as python, mlp-train, mlp-sweeps and pip.
"""

import os
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHORTER = {
    r"epochs=\d+": "epochs=1",
    r"hydra\.sweeper\.trials=\d+": "hydra.sweeper.trials=3",
    r"seed=0,1,2": "seed=0",
}


def text(words: str) -> str:
    """Words of a command, or Python, with its numbers made small."""
    for long, short in SHORTER.items():
        words = re.sub(rf"(?<![\w.]){long}\b", short, words)
    return words


def training(words: list[str]) -> list[str]:
    """The words after ``mlp-train``."""
    if {"--dry-run", "--help", "--cfg"} & set(words):
        return words
    words = [text(word) for word in words]
    if not any(word.startswith("epochs=") for word in words):
        words.append("epochs=1")
    if "hydra/sweeper=halving" in words:
        words = [word for word in words if word != "epochs=1"] + ["epochs=3", "hydra.sweeper.min_epochs=1"]
    return words


def reading(words: list[str]) -> list[str]:
    """The words after ``mlp-sweeps``."""
    return [*words, *{"watch": ["--once"], "timing": ["--rounds=2"]}.get(words[0], [])]


def installing(words: list[str]) -> None:
    """``pip install 'mlp-sweeps[onnx]'``: there is such an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    match words:
        case ["install", wanted] if named := re.fullmatch(r"mlp-sweeps\[([\w,]+)\]", wanted):
            unknown = set(named[1].split(",")) - project["optional-dependencies"].keys()
            sys.exit(f"no such extra: {unknown}" if unknown else 0)
    sys.exit(f"pip {words}: not a command that the docs should have")


def main() -> None:
    program, *words = sys.argv[1:]
    match program, words:
        case "pip", _:
            installing(words)
        case "mlp-train", _:
            words = ["-m", "mlp.train", *training(words)]
        case "mlp-sweeps", _:
            words = ["-m", "sweeps", *reading(words)]
        case "python", ["-m", "mlp.train", *rest]:
            words = ["-m", "mlp.train", *training(rest)]
        case "python", ["-m", "sweeps", *rest]:
            words = ["-m", "sweeps", *reading(rest)]
        case "python", [script, *rest] if script.startswith("scripts/"):
            words = [str(ROOT / script), *training(rest)]
    os.execv(sys.executable, [sys.executable, *words])


if __name__ == "__main__":
    main()
