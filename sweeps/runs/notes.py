"""A user's tags and note on a run, in notes.json of the run's directory.

They are not part of the run's identity, and training neither reads nor writes them. A separate lock lets a run be
tagged while it trains, and by two commands at once.
"""

import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sweeps.runs.directory import RunDir
from sweeps.runs.errors import DamagedRun, InputError
from sweeps.runs.files import lock, read_json, write_atomic

_LARGEST = 2**20  # bytes
_LONGEST_TAG = 100  # characters
_LONGEST_TEXT = 10_000
_MOST = 100
_NOT_IN_TAGS = frozenset(",=<>!'\"\\")  # filters could not name it


@dataclass(frozen=True)
class Notes:
    """A run's tags, each once and in order, and its note."""

    tags: tuple[str, ...] = ()
    text: str = ""

    def tagged(self, words: Iterable[str]) -> "Notes":
        return Notes(tuple(sorted({*self.tags, *words})), self.text)

    def untagged(self, words: Iterable[str]) -> "Notes":
        return Notes(tuple(sorted({*self.tags} - {*words})), self.text)


def tag(word: str) -> str:
    """The word, if it can be a tag.

    Raises:
        InputError: it cannot.
    """
    if not _is_tag(word):
        raise InputError(
            "tag",
            word,
            f"must be 1 to {_LONGEST_TAG} printable characters, none of them a blank or one of , = < > ! ' \" \\",
        )
    return word


def _is_tag(word: str) -> bool:
    is_word = word.isprintable() and not any(c.isspace() or c in _NOT_IN_TAGS for c in word)
    return is_word and 0 < len(word) <= _LONGEST_TAG


def path_of(run: RunDir) -> Path:
    return run.path / "notes.json"


def read(run: RunDir) -> Notes:
    """A run's; empty where there are none.

    Raises:
        DamagedRun: the file is not what :func:`edit` writes.
    """
    try:
        values = read_json(path_of(run), _LARGEST)
        return _checked(values["tags"], values["text"])
    except FileNotFoundError:
        return Notes()
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise DamagedRun(f"{path_of(run)}: not a run's notes ({error})") from None


def _checked(tags: Any, text: Any) -> Notes:
    if not (isinstance(tags, list) and len(tags) <= _MOST and all(isinstance(w, str) and _is_tag(w) for w in tags)):
        raise ValueError("tags")
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        raise ValueError("text")
    text.encode()  # lone surrogates fit no table
    return Notes(tuple(sorted({*tags})), text)


def edit(run: RunDir, change: Callable[[Notes], Notes]) -> Notes:
    """Change a run's notes, and return what they are now.

    Raises:
        InputError: there are too many tags, or the text cannot be kept.
        DamagedRun: the existing notes cannot be read, and are left as they are.
    """
    with lock(run.path / ".notes.lock"):
        before = read(run)
        after = change(before)
        if len(after.tags) > _MOST:
            raise InputError("tags", f"{len(after.tags)} of them", f"must be at most {_MOST}")
        try:
            _checked(list(after.tags), after.text)
        except ValueError:
            raise InputError("note", after.text, f"must be a text of at most {_LONGEST_TEXT} characters") from None
        if after != before:
            _write(run, after)
    return after


def _write(run: RunDir, notes: Notes) -> None:
    if notes == Notes():
        path_of(run).unlink(missing_ok=True)
    else:
        write_atomic(path_of(run), json.dumps(asdict(notes), indent=1, ensure_ascii=False).encode() + b"\n")


def carry(old: RunDir, new: RunDir) -> None:
    """Copy the notes of a run that was set aside to its replacement."""
    with contextlib.suppress(DamagedRun):  # they stay with the old one
        notes = read(old)
        if notes != Notes():
            new.make()
            _write(new, notes)
