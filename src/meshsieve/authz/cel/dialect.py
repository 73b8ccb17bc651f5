"""Which parts of the language an evaluator has: all of ours, or what Envoy's RBAC filter leaves switched on.

Envoy builds its evaluator without macros, string() and concatenation; a policy's ``cel_config`` switches the last two
on. It refuses a configuration that calls what is off; ``+`` of texts or lists it takes, and then has no value for it.
Source  envoy.config.core.v3.CelExpressionConfig; what Envoy 1.40.0 accepts and answers
        (tests/differential/cel_expressions.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """``macros``: all, exists, map and so on. ``final_errors``: one in making a map, or in ``matches`` with a literal
    pattern, ends the evaluation, whatever the other side of ``&&`` or ``||`` says."""

    macros: bool = True
    string_conversion: bool = True
    text_concatenation: bool = True
    list_concatenation: bool = True
    final_errors: bool = False


OWN = Dialect()


def of_envoy(*, string_conversion: bool, text_concatenation: bool) -> Dialect:
    return Dialect(False, string_conversion, text_concatenation, False, final_errors=True)
