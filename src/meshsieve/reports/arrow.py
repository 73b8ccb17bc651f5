"""Results as Arrow: record batches and a stream of them. Needs the ``arrow`` extra (pyarrow)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from meshsieve.extras import require
from meshsieve.output import Column

if TYPE_CHECKING:
    from meshsieve.classification import Classification


def record_batch(columns: Sequence[Column]) -> Any:
    """pyarrow.RecordBatch; text is dictionary-encoded, addresses are strings, missing values are null."""
    pa = require("pyarrow", "arrow")
    return pa.RecordBatch.from_arrays([_array(pa, column) for column in columns], [column.name for column in columns])


def _array(pa: Any, column: Column) -> Any:
    missing = None if column.valid is None else ~column.valid
    if column.kind == "number":
        return pa.array(column.data, mask=missing)
    if column.table is not None:
        # Only the texts that the batch uses: the table grows with the run.
        used, codes = np.unique(column.data, return_inverse=True)
        texts = [None if code < 0 else column.table.texts[code] for code in used]
        absent = np.array([text is None for text in texts], np.bool_)[codes]
        # Lone surrogates, from file names that are not UTF-8, have no Arrow form; they are shown as escapes.
        shown = ["" if t is None else t.encode("utf-8", "backslashreplace").decode() for t in texts]
        # Two rules may have one name; a dictionary holds it once, or pandas refuses it.
        distinct = list(dict.fromkeys(shown))
        position = {text: i for i, text in enumerate(distinct)}
        indices = np.array([position[text] for text in shown], np.int32)[codes]
        return pa.DictionaryArray.from_arrays(pa.array(indices, mask=absent), pa.array(distinct, pa.string()))
    text, offsets = column.address_texts()
    validity = None if missing is None else pa.py_buffer(np.packbits(~missing, bitorder="little").tobytes())
    return pa.StringArray.from_buffers(len(column), pa.py_buffer(offsets), pa.py_buffer(text), validity)


def reader(result: Classification) -> Any:
    """pyarrow.RecordBatchReader over the result; the capture is read as it is consumed."""
    pa = require("pyarrow", "arrow")

    def batches() -> Iterator[Any]:
        for batch in result:
            yield record_batch(batch.columns)

    return pa.RecordBatchReader.from_batches(record_batch(result.empty_columns()).schema, batches())


def table(result: Classification) -> Any:
    """The whole result as a pyarrow.Table."""
    return reader(result).read_all().unify_dictionaries()
