"""``--help`` of a program: keys and groups with their comments, sweepers and launchers, all from the YAML."""

import importlib.resources
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sweeps.launch.grid import value_of
from sweeps.launch.plan import flat
from sweeps.launch.plugins import DECLARED

_WIDTH = 100
_HYDRA = ("defaults", "hydra")  # not keys of the program


def text(command: str, file: Path) -> str:
    """The help of a program with a configuration, one or two screens.

    Args:
        command: how it is called.
        file: its primary configuration; the groups are in folders beside it.
    """
    content = yaml.safe_load(file.read_text()) or {}
    comments = _comments(file)
    blocks = [_usage(command), textwrap.fill(comments.pop("", ""), _WIDTH)]
    blocks += [f"Keys\n{_keys(content, comments)}", _groups(file.parent, content.get("defaults", ()))]
    return "\n\n".join(filter(None, [*blocks, _sweeps(command), _options(command)]))


def _usage(command: str) -> str:
    return (
        f"usage: {command} [KEY=VALUE ...]                  one run; a finished one is not trained again\n"
        f"       {command} --multirun KEY=VALUE,VALUE ...   a sweep: every combination\n"
        f"       {command} ... --dry-run                    list what would be trained, and stop"
    )


def _comments(file: Path) -> dict[str, str]:
    """Key → the comment on its line; "" → the first line of the file, if it is one."""
    lines = file.read_text().splitlines()
    found = {"": lines[0].removeprefix("#").strip()} if lines and lines[0].startswith("# ") else {}
    parents: list[tuple[int, str]] = []
    for line in lines:
        match = re.match(r"( *)([\w.-]+):(?: .*?)??(?:\s+#\s*(.*))?$", line)
        if match:
            indent, key = len(match[1]), match[2]
            parents = [parent for parent in parents if parent[0] < indent] + [(indent, key)]
            found[".".join(name for _, name in parents)] = match[3] or ""
    return found


def _keys(content: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    own = {key: value for key, value in content.items() if key not in _HYDRA}
    return _aligned((f"{key}={_shown(value)}", comments.get(key, "")) for key, value in flat(own).items())


def _shown(value: object) -> str:
    return value if isinstance(value, str) and "${" in value else value_of(value)


def _groups(folder: Path, defaults: Sequence[Any]) -> str:
    """The groups of the defaults list: the choice, the choices, and their options."""
    rows = []
    for entry in defaults:
        if not isinstance(entry, Mapping):
            continue
        group, chosen = next(iter(entry.items()))
        files = sorted((folder / str(group)).glob("*.yaml"))
        if files:  # else Hydra's own, "override hydra/launcher"
            options = dict.fromkeys(option for file in files for option in _own_options(str(group), file))
            more = f"; {', '.join(options)}" if options else ""
            rows.append((f"{group}={value_of(chosen)}", ", ".join(file.stem for file in files) + more))
    return f"Groups: GROUP=CHOICE; after the choices, their keys\n{_aligned(rows)}" if rows else ""


def _own_options(group: str, file: Path) -> list[str]:
    if "@package" in file.read_text():  # its keys belong elsewhere
        return []
    content = yaml.safe_load(file.read_text()) or {}
    return [f"{group}.{key}" for key in content if key not in ("name", *_HYDRA)]


def _sweeps(command: str) -> str:
    return "\n".join(
        [
            "Sweeps (--multirun)",
            _aligned(
                [
                    ("lr=0.1,0.01", "values; also 'range(1,5)'; several keys make a grid"),
                    ("hydra/sweeper=NAME", "how runs are chosen; its keys are hydra.sweeper.KEY=VALUE"),
                    *_plugins("sweeper"),
                    ("hydra/launcher=NAME", "where they are trained; its keys are hydra.launcher.KEY=VALUE"),
                    *_plugins("launcher"),
                ]
            ),
            f"  {command} --cfg hydra --package hydra.launcher hydra/launcher=slurm   shows the keys and values of one",
        ]
    )


def _plugins(group: str) -> Iterator[tuple[str, str]]:
    """Names, the first words of their YAML, and their keys; lsf, pbs and sge have dask's."""
    hidden = {*DECLARED, "max_batch_size"}  # for applications that do not declare it themselves
    folder = importlib.resources.files("sweeps.conf") / "hydra" / group
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            first = file.read_text().partition("\n")[0].removeprefix("# ")
            keys = [key for key in yaml.safe_load(file.read_text()) if key[0] != "_" and key not in hidden]
            more = "" if "defaults" in keys else f": {', '.join(keys)}"
            yield f"  {file.name.removesuffix('.yaml')}", re.split(r"; |\. |\.$", first)[0] + more


def _options(command: str) -> str:
    return "Options\n" + _aligned(
        [
            ("--dry-run", "list the runs, which of them exist, and how long the rest may take"),
            ("--cfg job", "print the composed configuration, and stop"),
            ("--config-dir DIR", "more configurations, e.g. DIR/model/wide.yaml for model=wide"),
            ("--version", "print the version, and stop"),
            ("--hydra-help", "the other options, which are Hydra's"),
        ]
    )


def _aligned(rows: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> str:
    """Two columns; the second is wrapped."""
    rows = list(rows)
    width = min(24, max((len(name) for name, _ in rows), default=0))
    lines = []
    for name, said in rows:
        indent = " " * (width + 4)
        first = f"  {name:<{width}}  "
        lines.append(textwrap.fill(said, _WIDTH, initial_indent=first, subsequent_indent=indent) if said else first)
    return "\n".join(line.rstrip() for line in lines)
