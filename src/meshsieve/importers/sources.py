"""Finding and reading configuration files: files, folders, stdin, gzip; strict UTF-8 and bounded sizes."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from meshsieve.errors import PolicyError
from meshsieve.policy import SourceFile

MAX_FILE_BYTES = 256 * 2**20
MAX_FILES = 10_000
# Plain text deflates to at most 1:1032 (zlib's own bound); real configuration stays below 1:200.
MAX_GZIP_RATIO = 1000
_CHUNK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"


def find_files(paths: Iterable[str | os.PathLike[str]], max_files: int = MAX_FILES) -> list[Path | None]:
    """The files that ``paths`` name: files as they are, folders recursively in sorted order, "-" as None for stdin.

    In folders, names that start with a dot are left out, as shells do, and symbolic links to folders are not followed.

    raises  PolicyError for a path that does not exist, or for more than ``max_files`` files
    """
    found: list[Path | None] = []
    for text in paths:
        path = Path(text)
        if str(text) == "-":
            found.append(None)
        elif path.is_dir():
            found.extend(_files_below(path))
        elif path.exists():
            found.append(path)
        else:
            raise PolicyError("no such file or folder", where=str(path))
        if len(found) > max_files:
            raise PolicyError(
                f"more than {max_files} files", where=str(path), hint="name the files that hold configuration"
            )
    return found


def read_source(
    path: str | os.PathLike[str] | None, *, max_bytes: int = MAX_FILE_BYTES, max_ratio: int = MAX_GZIP_RATIO
) -> SourceFile:
    """A configuration file as text; None reads stdin. Gzip is recognised by content and unpacked.

    raises  PolicyError for unreadable files, files beyond ``max_bytes`` (unpacked), gzip that is broken or unpacks to
            more than ``max_ratio`` times its size, text that is not UTF-8, and NUL characters
    """
    name = "<stdin>" if path is None else os.fspath(path)
    try:
        if path is None:
            data = _read_bounded(sys.stdin.buffer, name, max_bytes, max_ratio)
        else:
            with open(path, "rb") as stream:
                data = _read_bounded(stream, name, max_bytes, max_ratio)
    except OSError as error:
        raise PolicyError(f"cannot be read: {error.strerror or error}", where=name) from None
    return SourceFile(name, _decode(data, name))


def _files_below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise PolicyError(f"cannot be read: {error.strerror}", where=str(error.filename or folder))

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _read_bounded(stream: BinaryIO, name: str, max_bytes: int, max_ratio: int) -> bytes:
    too_big = PolicyError(f"is larger than {max_bytes} bytes", where=name, hint="split the file")
    head = stream.read(len(_GZIP_MAGIC))
    if head != _GZIP_MAGIC:
        data = head + stream.read(max_bytes + 1 - len(head))
        if len(data) > max_bytes:
            raise too_big
        return data
    parts: list[bytes] = []
    packed, unpacked = len(head), 0
    inflater = zlib.decompressobj(wbits=31)
    chunk = head
    while chunk or not inflater.eof:
        if inflater.eof:  # a gzip file may have several members, one after the other
            inflater = zlib.decompressobj(wbits=31)
        try:
            part = inflater.decompress(chunk, _CHUNK_BYTES)
        except zlib.error as error:
            raise PolicyError(f"broken gzip after {unpacked} bytes: {error}", where=name) from None
        parts.append(part)
        unpacked += len(part)
        if unpacked > max_bytes:
            raise too_big
        if unpacked > max_ratio * packed + _CHUNK_BYTES:
            raise PolicyError(f"gzip unpacks to more than {max_ratio} times its size", where=name)
        chunk = inflater.unconsumed_tail or inflater.unused_data
        if not chunk:
            chunk = stream.read(_CHUNK_BYTES)
            packed += len(chunk)
            if not chunk and not inflater.eof and not part:
                raise PolicyError(f"gzip ends early, after {unpacked} bytes", where=name)
    return b"".join(parts)


def _decode(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PolicyError(
            f"not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}",
            where=name,
            hint="convert the file, for example with iconv",
        ) from None
    nul = text.find("\0")
    if nul >= 0:
        raise PolicyError("NUL character", where=f"{name}:{text.count(chr(10), 0, nul) + 1}")
    return text.removeprefix("\ufeff")
