"""Look-ups, called millions of times; docs in _fast.pyx."""

from typing import Any

def __getattr__(name: str) -> Any: ...
