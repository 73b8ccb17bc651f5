"""Text from captures and policies, made safe to show on a terminal.

C0 and C1 controls, DEL, bidirectional controls and separators, other invisible format characters and lone surrogates
come out as escapes (``\\x1b``, ``\\u202e``): one event stays one line, and nothing moves the cursor.
"""

from __future__ import annotations

import unicodedata

# Categories of characters that act instead of showing: controls, format characters (bidi, zero width), surrogates,
# unassigned and private use, line and paragraph separators.
_ACTING = frozenset({"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"})


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable(text: str, *, keep_newlines: bool = False) -> str:
    """``text`` with everything that could act on a terminal escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if (c == "\n" and keep_newlines) or unicodedata.category(c) not in _ACTING else _escape(c) for c in text
    )
