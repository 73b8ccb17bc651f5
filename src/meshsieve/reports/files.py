"""Output files that are whole or absent: written beside the target, flushed to disk, renamed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from meshsieve.errors import OutputError


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that becomes ``path`` when the block ends without an error, and vanishes otherwise.

    At every instant ``path`` is the old file or the complete new one. The temporary file is made exclusively in the
    same folder; it gets the permissions that any new file would have.

    raises  OutputError naming the path, if writing, flushing or renaming fails
    """
    target = os.path.abspath(os.fspath(path))
    folder = os.path.dirname(target)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(target)[:100]}.", suffix=".part", dir=folder)
    except OSError as error:
        raise OutputError(f"{os.fspath(path)}: cannot write here: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(file.fileno(), 0o666 & ~mask)
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(folder)
    except OSError as error:
        _remove(temporary)
        raise OutputError(f"{os.fspath(path)}: could not be written: {error.strerror or error}") from error
    except BaseException:
        _remove(temporary)
        raise


def _sync_folder(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
