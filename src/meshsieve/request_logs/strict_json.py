"""JSON from strangers: no duplicate keys, no NaN, bounded depth, one exception type."""

from __future__ import annotations

import json
from typing import Any

from meshsieve.errors import ModelError


def load(text: str | bytes) -> Any:
    """raises  ModelError saying what is wrong"""
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ModelError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ModelError("JSON nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ModelError(f"not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}") from None
    except ModelError:
        raise
    except ValueError as error:  # a number of more digits than Python converts
        raise ModelError(f"not JSON that can be read: {error}") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ModelError(f"the key {key!r} is there twice")
            seen.add(key)
    return out


def _refuse_constant(text: str) -> Any:
    raise ModelError(f"{text} is not a JSON number")
