"""Conditions in CEL, the Common Expression Language: a documented subset, parsed and evaluated here.

    parse.py       text to tree            tree.py    the tree, and Envoy's JSON of it
    evaluate.py    tree to value           values.py  types, arithmetic, conversions
    attributes.py  what a request offers   program.py the three together, as rules use them

What    Literals, operators, field selection, indexing, ``has``, the macros all exists exists_one filter map, and the
        functions of ``values.FUNCTIONS``. Nothing of Python is reachable: there is no eval and no attribute access.
Cost    One unit a node evaluated, at most 10,000, so linear in the expression and the lists it runs over; texts that
        grow beyond 64 KiB are an error. Regular expressions are RE2's.
Source  google/cel-spec (langdef.md); attribute names of Envoy.
"""

from meshsieve.authz.cel.program import CelProgram, compile_expression

__all__ = ["CelProgram", "compile_expression"]
