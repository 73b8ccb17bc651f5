"""The whole exception tree.

Catch ``MeshsieveError`` for everything; the class says what kind of thing went wrong, the attributes say where.
Bad packets are values (``decode_status``), never exceptions.
"""

from __future__ import annotations


class MeshsieveError(Exception):
    """Base of every exception that meshsieve raises on purpose."""


class ModelError(MeshsieveError, ValueError):
    """A rule, set or rule set that cannot be what it says it is."""


class ColumnError(ModelError):
    """Columns of headers that do not fit together: missing, of unequal length, of a wrong dtype."""


class CompileError(MeshsieveError):
    """A rule set that an engine cannot take."""


class TableError(MeshsieveError):
    """A saved table that cannot be used: another kind of file, another version, damaged, or one that cannot be."""


class BackendError(MeshsieveError, ValueError):
    """An engine or SIMD backend that does not exist or that this CPU lacks."""


class BalanceError(MeshsieveError, ValueError):
    """Hosts, weights, table sizes or hash policies that the balancer in question refuses too; the message says why."""


class CaptureError(MeshsieveError):
    """A capture that cannot be read (further).

    packets_read    packets delivered before the error; they stay valid
    offset          byte position in the (decompressed) stream, or None
    """

    def __init__(self, message: str, packets_read: int = 0, offset: int | None = None) -> None:
        super().__init__(message)
        self.packets_read = packets_read
        self.offset = offset


class FilterError(MeshsieveError, ValueError):
    """A capture filter expression that libpcap refuses."""


class PolicyError(MeshsieveError):
    """Configuration that cannot be read, or cannot be expressed exactly.

    where   'file:line:col' as far as known
    obj     the object's path or name
    hint    what to do
    """

    def __init__(self, message: str, *, where: str = "", obj: str = "", hint: str = "") -> None:
        text = f"{where}: {message}" if where else message
        if obj:
            text += f" [{obj}]"
        if hint:
            text += f"\n  hint: {hint}"
        super().__init__(text)
        self.message = message
        self.where = where
        self.obj = obj
        self.hint = hint


class UsageError(MeshsieveError, ValueError):
    """A question that makes no sense as it is put; the message says how to put it."""


class OutputError(MeshsieveError):
    """A result that could not be written; the target is the old file or absent, never a part."""


class MissingExtraError(MeshsieveError, ImportError):
    """An optional library is needed for what was asked; the message names the extra to install."""
