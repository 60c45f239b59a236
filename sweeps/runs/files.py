"""The only module that opens files of a results tree: read without trust, written whole or not at all.

Anything below ``out`` may come from someone else. No link is followed, only regular files are opened, and nothing is
read that is larger than its reader allows. A test checks that no other module opens files there.

opened, read_file, read_if_there, read_json    what is there
write_atomic, append, appending, set_aside     what is written
folder, inside, listed, refuse                 where
lock, is_locked                                by whom
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from filelock import FileLock

from sweeps.runs.errors import DamagedRun, InputError

LARGEST = 64 * 2**20
"""Bytes of a file other than a checkpoint: a foreign file must not fill the memory."""


@contextlib.contextmanager
def opened(path: Path, limit: int = LARGEST) -> Iterator[BinaryIO]:
    """A file to be read in parts.

    Raises:
        FileNotFoundError, PermissionError: as usual.
        DamagedRun: it is not a regular file of at most ``limit`` bytes.
    """
    handle, _ = _open(path, limit)
    with os.fdopen(handle, "rb") as file:
        yield file


def read_file(path: Path, limit: int = LARGEST) -> bytes:
    """A file's content.

    Raises:
        FileNotFoundError, PermissionError: as usual.
        DamagedRun: it is not a regular file of at most ``limit`` bytes, or the disk cannot read it.
    """
    handle, size = _open(path, limit)
    try:
        content = b""
        while piece := os.read(handle, size + 1 - len(content)):
            content += piece
        return content
    except OSError as error:
        raise DamagedRun(f"{path}: {error.strerror}") from None
    finally:
        os.close(handle)


def _open(path: Path, limit: int) -> tuple[int, int]:
    """Descriptor and size: no link is followed, no pipe waited for."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        is_link = error.errno == errno.ELOOP
        reason = "is a symbolic link, and is not followed" if is_link else error.strerror
        raise DamagedRun(f"{path}: {reason}") from None
    info = os.fstat(handle)
    if stat.S_ISREG(info.st_mode) and info.st_size <= limit:
        return handle, info.st_size
    os.close(handle)
    reason = f"too large ({info.st_size} bytes)" if stat.S_ISREG(info.st_mode) else "not a regular file"
    raise DamagedRun(f"{path}: {reason}")


def read_if_there(path: Path) -> bytes | None:
    """As :func:`read_file`; None if there is no file."""
    try:
        return read_file(path)
    except FileNotFoundError:
        return None


def read_json(path: Path, limit: int = LARGEST) -> Any:
    """A file's content as plain data, whose structure is the reader's to check.

    Raises:
        FileNotFoundError, PermissionError: as usual.
        DamagedRun: as :func:`read_file`, or it is not JSON.
    """
    try:
        return json.loads(read_file(path, limit))
    except (ValueError, RecursionError) as error:
        raise DamagedRun(f"{path}: not JSON ({error})") from None


def set_aside(path: Path) -> Path:
    """Rename a damaged file, so that it can be replaced and still be examined; returns its new path."""
    aside = path.with_suffix(".damaged")
    os.replace(path, aside)
    return aside


def digest(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_atomic(path: Path, content: bytes, *, durable: bool = True, keep: Path | None = None) -> None:
    """Write a file whole or not at all: temporary file beside it, fsync, rename.

    Args:
        durable: False saves the fsync, for files that a power cut may destroy.
        keep: where to keep the file as it was before; only replaced after the new one was read back from the disk.

    Raises:
        OSError: it cannot be written, or (EIO) does not read back; ``path`` and ``keep`` are as they were.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_UMASK)  # mkstemp's 0600 would lock colleagues out
            if durable:
                os.fsync(file.fileno())
        if keep is not None:
            _check_on_disk(temporary, content)
            _keep(path, keep)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _check_on_disk(path: str, content: bytes) -> None:
    with open(path, "rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):  # so that it comes from the disk and not from memory
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if file.read() != content:
            raise OSError(errno.EIO, "is not on the disk as it was written", path)


def _keep(path: Path, keep: Path) -> None:
    """A second name for the file, so that there is always a whole file under the first."""
    if path.exists():
        keep.unlink(missing_ok=True)
        try:
            os.link(path, keep)
        except OSError:  # a file system without links
            os.replace(path, keep)


def append(path: Path, content: bytes) -> None:
    """Add to a file's end, on disk when this returns.

    Raises:
        InputError: it is a link, or no file.
        OSError: the disk is full, or another; a part may have been written.
    """
    handle = _open_to_append(path)
    try:
        if os.write(handle, content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(handle)
    finally:
        os.close(handle)


def appending(path: Path) -> TextIO:
    """A text file to which a log is added.

    Raises:
        InputError: it is a link, or no file.
    """
    return os.fdopen(_open_to_append(path), "a", encoding="utf-8")


def _open_to_append(path: Path) -> int:
    refuse(path)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def folder(out: Path, *names: str) -> Path:
    """``out``/names…, made if need be. A tree from someone else must not make us write elsewhere.

    Raises:
        InputError: one of the names is a symbolic link.
    """
    path = inside(out, *names)
    path.mkdir(parents=True, exist_ok=True)
    return path


def inside(out: Path, *names: str) -> Path:
    """``out``/names…, by no link.

    Raises:
        InputError: one of the names is a symbolic link.
    """
    for name in names:
        out = out / name
        if out.is_symlink():
            raise _linked(out)
    return out


def listed(out: Path, *names: str) -> "list[os.DirEntry[str]]":
    """What is in ``out``/names…, by name.

    Raises:
        InputError: one of the names is a symbolic link.
        OSError: it cannot be read, or is not there.
    """
    return sorted(os.scandir(inside(out, *names)), key=lambda entry: entry.name)


def refuse(*paths: Path) -> None:
    """Check a path that is opened for writing in place, by us or by a library: a regular file, or nothing yet.

    Raises:
        InputError: it is something else.
    """
    for path in paths:
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        if stat.S_ISLNK(mode):
            raise _linked(path)
        if not stat.S_ISREG(mode):
            raise InputError("out", str(path), "must be a file")


def refuse_database(path: Path) -> None:
    """As :func:`refuse`, for a file that SQLite opens, and those that it makes beside it."""
    refuse(*(path.with_name(path.name + suffix) for suffix in ("", "-journal", "-wal", "-shm")))


def _linked(path: Path) -> InputError:
    return InputError("out", str(path), "is a symbolic link inside of the results tree, and is not followed")


def lock(path: Path) -> FileLock:
    """Inter-process lock, released by the kernel when its holder dies.

    Raises:
        InputError: it is a link, or no file.
    """
    refuse(path)
    return FileLock(path)


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock. Does not write, since the tree may be read-only or another user's."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError:  # then it cannot be known, and the status is believed
        return True
    except OSError:  # there is none, or not one that we would lock
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    else:
        return False
    finally:
        os.close(handle)


def _current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _current_umask()
