"""Files as runs need them: read without trust, written whole or not at all."""

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from sweeps.runs.errors import DamagedRun, InputError

LARGEST = 64 * 2**20
"""Bytes of a file other than a checkpoint: what is no run's must not fill the memory."""


def read_file(path: Path, limit: int = LARGEST, *, tail: int | None = None) -> bytes:
    """A file of a run directory, which may be a stranger's: no link is followed, no pipe waited for.

    Args:
        tail: only so many bytes at its end.

    Raises:
        FileNotFoundError, PermissionError: as usual.
        DamagedRun: it is not a regular file of at most ``limit`` bytes, or the disk cannot read it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            info = os.fstat(handle)
            if not stat.S_ISREG(info.st_mode):
                raise DamagedRun(f"{path}: not a regular file")
            if info.st_size > limit:
                raise DamagedRun(f"{path}: too large ({info.st_size} bytes)")
            wanted = info.st_size if tail is None else min(tail, info.st_size)
            os.lseek(handle, info.st_size - wanted, os.SEEK_SET)
            content = b""
            while piece := os.read(handle, wanted + 1 - len(content)):
                content += piece
            return content
        finally:
            os.close(handle)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        is_link = error.errno == errno.ELOOP
        reason = "is a symbolic link, and is not followed" if is_link else error.strerror
        raise DamagedRun(f"{path}: {reason}") from None


def read_if_there(path: Path) -> bytes | None:
    """As :func:`read_file`; None if there is no file."""
    try:
        return read_file(path)
    except FileNotFoundError:
        return None


def set_aside(path: Path) -> Path:
    """Rename a damaged file, so that it is in nobody's way and can still be looked at; returns its new place."""
    aside = path.with_suffix(".damaged")
    os.replace(path, aside)
    return aside


def digest(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_atomic(path: Path, content: bytes, *, durable: bool = True, keep: Path | None = None) -> None:
    """Write a file whole or not at all: temporary file beside it, fsync, rename.

    Args:
        durable: False saves the fsync, for what a power cut may take.
        keep: where the file as it was before stays; that is given up only for one that was read back from the disk.

    Raises:
        OSError: it cannot be written, or (EIO) does not read back; ``path`` and ``keep`` are as they were.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_UMASK)  # mkstemp's 0600 would shut colleagues out
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
    """A second name for what is there, so that there is no moment without a whole file under the first."""
    if path.exists():
        keep.unlink(missing_ok=True)
        try:
            os.link(path, keep)
        except OSError:  # a file system without links
            os.replace(path, keep)


def folder(out: Path, *names: str) -> Path:
    """``out``/names…, made if need be. A tree that a stranger packed must not have us write elsewhere.

    Raises:
        InputError: one of the names is a symbolic link.
    """
    for name in names:
        out = out / name
        if out.is_symlink():
            raise linked(out)
    out.mkdir(parents=True, exist_ok=True)
    return out


def linked(path: Path) -> InputError:
    """The error for a link where a results tree must have none."""
    return InputError("out", str(path), "is a symbolic link inside of the results tree, and is not followed")


def append(path: Path, content: bytes) -> None:
    """Add to a file's end, on disk when this returns.

    Raises:
        OSError: the disk is full, or another; a part may have been written.
    """
    with open(path, "ab", buffering=0) as file:
        if file.write(content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())


def _current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _current_umask()
