"""The C++ core as Python sees it. Arrays are copied in unless a docstring says otherwise; n is a number of rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

class FieldInfo:
    """One matcher field of csrc/include/meshsieve/fields.def."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str:
        """address, number or name."""
    @property
    def bits(self) -> int: ...
    @property
    def requires(self) -> str:
        """What must hold for a packet to have the field: nothing, ip, ports, tcp, icmp or vlan_tag."""
    @property
    def doc(self) -> str: ...

FIELDS: tuple[FieldInfo, ...]

class RuleSet:
    """The compiled engines' input; see meshsieve.model.

    raises  ModelError if ids or offsets are out of range, a set is not canonical, or a skip does not go forward
    """

    def __init__(
        self,
        offsets: npt.NDArray[np.uint64],
        intervals: npt.NDArray[np.uint64],
        common: npt.NDArray[np.int32],
        alternative_begin: npt.NDArray[np.uint32],
        alternatives: npt.NDArray[np.int32],
        action: npt.NDArray[np.uint8],
        skip_to: npt.NDArray[np.int32],
        certain: npt.NDArray[np.uint8],
    ) -> None: ...
    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """Copies of what the constructor takes."""
    def __len__(self) -> int: ...
    @property
    def fields_used(self) -> int:
        """Bit mask, by position in FIELDS, of the fields that any rule constrains."""

class Candidate:
    """An engine that was built for rules [begin, end), and how it did on headers sampled from them."""

    @property
    def engine(self) -> str: ...
    @property
    def begin(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def build_seconds(self) -> float: ...
    @property
    def lookup_ns(self) -> float:
        """A look-up in a batch; 0 where it was not measured."""
    @property
    def taken(self) -> bool: ...
    @property
    def declined(self) -> str:
        """Why it could not be built, or ""."""

class CompileStats:
    @property
    def engine(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def rules(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def segments(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def bytes_per_rule(self) -> float: ...
    @property
    def build_seconds(self) -> float: ...
    @property
    def candidates(self) -> Sequence[Candidate]: ...
    @property
    def worst_case_steps(self) -> int:
        """Table reads and rule comparisons of the most expensive packet."""

class Classifier:
    @property
    def stats(self) -> CompileStats: ...
    @property
    def capsule(self) -> Any:
        """Capsule "meshsieve.Classifier/1" for meshsieve._fast.Lookup."""

class Image:
    """The bytes of a saved table, its header and rows checked; a read-only buffer, with a tag behind if ``signed``.

    raises  TableError for anything else; OSError
    """

    @staticmethod
    def open(path: bytes, mapped: bool = ...) -> Image: ...
    @staticmethod
    def of(bytes: bytes) -> Image: ...
    @property
    def signed(self) -> bool: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

def save_classifier(classifier: Classifier, attachments: Sequence[bytes], signed: bool = ...) -> bytes:
    """A whole image; ``attachments`` are handed back by ``load_classifier``."""

def load_classifier(image: Image, backend: str = ...) -> tuple[Classifier, RuleSet, Sequence[bytes]]:
    """raises  TableError for a table that cannot be: nothing in an image is believed"""

def save_prefixes(table: PrefixTable, signed: bool = ...) -> bytes: ...
def load_prefixes(image: Image, backend: str = ...) -> PrefixTable: ...
def seal(image: bytes) -> bytes:
    """The image with magic, length and checksum put right: for tests of what stands behind the checksum."""

class LiveVersion:
    """One published state of a LiveTable."""

    def __len__(self) -> int: ...
    @property
    def stats(self) -> CompileStats: ...
    @property
    def capsule(self) -> Any:
        """As of Classifier."""
    @property
    def slots(self) -> npt.NDArray[np.int32]:
        """int32 (rules,): the list as slots, which number the first rules and then those put in since."""
    def rule_set(self) -> RuleSet:
        """The list. The GIL is released."""

class LiveTable:
    """A list that changes (csrc/src/l4/live_table.h). Raises CompileError for what it does not take."""

    def __init__(self, rules: RuleSet, backend: str, budget_bytes: int, stats: CompileStats) -> None: ...
    @property
    def published(self) -> LiveVersion: ...
    @property
    def broken(self) -> bool: ...
    @property
    def worn(self) -> bool:
        """A table built anew would be better or smaller."""
    @property
    def crowded(self) -> bool:
        """Most slots are of rules that were taken out."""
    def renumber(self) -> LiveVersion:
        """Publishes the same list with slots numbered as its rules stand; those taken out are forgotten."""
    def apply(
        self, remove: npt.NDArray[np.int64], at: npt.NDArray[np.int64], rules: list[Any] | RuleSet
    ) -> LiveVersion:
        """Publishes the list without ``remove`` and with ``rules`` (of meshsieve.model.Rule, or as columns) before the
        rules at ``at``, which ascends. The GIL is released but for reading Rule objects."""

class PrefixTable:
    """The changes of meshsieve.prefix_table; keys are (IP version, high word, low word, prefix length)."""

    def __init__(self, backend: str = ...) -> None: ...
    def __len__(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def capsule(self) -> Any: ...
    def exact(self, key: tuple[int, int, int, int]) -> int | None: ...
    def items(self) -> Sequence[tuple[tuple[int, int, int, int], int]]: ...
    def apply(self, changes: Sequence[tuple[tuple[int, int, int, int], int | None]]) -> bool: ...

def compile(rules: RuleSet, engine: str = ..., backend: str = ..., budget_bytes: int = ...) -> Classifier: ...
def trace(rules: RuleSet, fields: Sequence[tuple[int, int, int]]) -> npt.NDArray[np.int64]:
    """The walk of one packet by the linear reference.

    fields   (field index, high word, low word) of every field that the packet has
    returns  int64 (n, 4), one row a tested rule: rule, truth (0 no, 1 maybe, 2 yes), failed and unknown field masks
    """

def engines() -> Sequence[tuple[str, str]]: ...
def walk(rules: RuleSet, fields: Sequence[tuple[int, int, int]], start: int = ...) -> int:
    """The reference's result for one packet, given as (field index, high word, low word); walks from rule ``start``."""

class RowFormatter:
    """Rows of typed columns as NDJSON or CSV.

    cells      (kind, prefix, quoted) each; kind is number, address or text, prefix what stands before the value
    null_text  what stands for "no value"
    """

    def __init__(
        self, cells: Sequence[tuple[str, bytes, bool]], row_begin: bytes, row_end: bytes, null_text: bytes
    ) -> None: ...
    def clear_texts(self, column: int) -> None:
        """Codes of the column count from 0 again, in a table of its own."""
    def share_texts(self, column: int, owner: int) -> None:
        """The codes of a column are those of another one from now on."""
    def add_texts(self, column: int, pieces: Sequence[bytes]) -> None:
        """More finished texts for a text column, by code."""
    def format(
        self,
        n: int,
        columns: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any] | None, npt.NDArray[Any] | None]],
    ) -> bytes:
        """n rows; a column is (data, valid, version), see meshsieve.output.Column. The GIL is released.

        raises  ModelError if a column has the wrong type or shape, or a code has no text
        """

def format_addresses(
    data: npt.NDArray[np.uint64], version: npt.NDArray[np.uint8] | None, valid: npt.NDArray[np.bool_] | None
) -> tuple[bytes, npt.NDArray[np.int32]]:
    """Addresses as text end to end, and int32 (n + 1,) where each begins; nothing where valid is false."""

def backends() -> Sequence[str]: ...

DECODE_STATUSES: tuple[tuple[str, str], ...]
TUNNEL_KINDS: tuple[tuple[str, str], ...]
TCP_STATES: tuple[str, ...]
FLOW_ENDS: tuple[str, ...]
FLOW_NOTES: tuple[str, ...]
APPS: tuple[tuple[str, str], ...]
APP_ATTRIBUTES: tuple[tuple[str, str], ...]
APP_HOWS: tuple[str, ...]

def app_of_port(proto: int, port: int) -> int: ...

class UserSignature:
    def __init__(
        self,
        app: int,
        proto: int,
        ports: list[tuple[int, int]],
        prefix: bytes,
        mask: bytes,
        host_suffixes: list[str],
    ) -> None: ...

MAX_BATCH: int

def link_type_is_known(link_type: int) -> bool: ...

class PacketBatch:
    """Decoded packets, a struct of arrays. The constructor copies columns that come from elsewhere.

    raises  ModelError if a column has not n rows, CaptureError over 65,536 packets
    """

    def __init__(self, n: int, columns: dict[str, npt.NDArray[Any]], present: npt.NDArray[np.uint32]) -> None: ...
    def __len__(self) -> int: ...
    @property
    def has_flows(self) -> bool: ...
    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the columns that are fields, and of all others; those of flows once a flow table has filled them."""

    def column(self, name: str) -> npt.NDArray[Any]:
        """One column, a read-only view that keeps the batch alive. KeyError for other names."""

    def present(self) -> npt.NDArray[np.uint32]:
        """The mask of fields, such a view."""

class CaptureProblem:
    @property
    def name(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def packets_read(self) -> int: ...
    @property
    def offset(self) -> int: ...

class CaptureShard:
    """See meshsieve.capture.Shard."""

    def __init__(
        self, begin: int, end: int, file_size: int, packets_before: int, time_ns: int, prologue: bytes
    ) -> None: ...
    @property
    def begin(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def file_size(self) -> int: ...
    @property
    def packets_before(self) -> int: ...
    @property
    def time_ns(self) -> int: ...
    @property
    def prologue(self) -> bytes: ...

def scan_shards(path: bytes, n: int) -> Sequence[CaptureShard]: ...

class CaptureReader:
    """See meshsieve.capture.read."""

    def __init__(
        self,
        paths: Sequence[bytes],
        names: Sequence[str],
        shards: Sequence[CaptureShard],
        merge: bool,
        filter: str,
        count: int | None,
        start_ns: int | None,
        end_ns: int | None,
    ) -> None: ...
    def next_batch(
        self, batch_size: int, flows: FlowTable | None, http: HttpRequests | None, keep_bytes: bool
    ) -> PacketBatch | None:
        """The next batch, None at the end; the GIL is released."""
    def follow(self, flows: FlowTable, http: HttpRequests | None) -> bool:
        """Some packets through the flow table, without columns; False at the end; the GIL is released."""
    def close(self) -> None: ...
    @property
    def packets_read(self) -> int: ...
    @property
    def packets_delivered(self) -> int: ...
    @property
    def bytes_read(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def status_counts(self) -> Sequence[int]: ...
    @property
    def problems(self) -> Sequence[CaptureProblem]: ...

class FlowBatch:
    """Records of flows, a struct of arrays."""

    def attributes(self) -> dict[str, npt.NDArray[np.int32]]:
        """Codes by attribute, of those that a flow has."""
    def texts(self) -> list[str | None]:
        """The texts that the codes mean; never None."""
    def text_buffers(self) -> tuple[bytes, npt.NDArray[np.int64]]:
        """The same in UTF-8, end to end, and where each begins: int64 (n + 1,)."""
    def __len__(self) -> int: ...
    def arrays(self) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.uint32], dict[str, npt.NDArray[Any]]]:
        """(fields, present, extra): read-only views that keep the records alive."""
    def community_ids(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """int8 (n, 30): characters."""

class FlowTable:
    """See meshsieve.flows.FlowTable. Options: names of FlowOptions in csrc/include/meshsieve/flow_table.h."""

    def __init__(self, options: dict[str, Any]) -> None: ...
    def update(self, batch: PacketBatch) -> None: ...
    def finish(self) -> None: ...
    def take_dns_answers(self) -> list[tuple[int, int, bytes, str]]: ...
    def take_finished(self, sorted: bool) -> FlowBatch: ...
    @property
    def finished(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def stats(self) -> dict[str, int]: ...

HTTP_NOTES: tuple[tuple[str, str], ...]
NO_TIME: int

class HttpRequests:
    """See meshsieve.http_requests.RequestReader."""

    def __init__(self, head_bytes: int, header_lines: int, pending: int, memory_bytes: int) -> None: ...
    def finish(self) -> None: ...
    def take(self) -> dict[str, Any]:
        """Columns by name: arrays of numbers, lists of bytes, and "headers", a list of lists of (name, value)."""
    @property
    def ready(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def counts(self) -> dict[str, int]: ...

def __getattr__(name: str) -> Any: ...

class Regex:
    """A regular expression with RE2's semantics over bytes: linear time, `.` takes one byte.

    raises  ModelError in RE2's words if the pattern does not compile within 8 MiB
    """

    def __init__(self, pattern: bytes) -> None: ...
    def full_match(self, text: bytes) -> bool: ...
    def groups(self, text: bytes) -> list[bytes]:
        """The whole match and the groups of a full match; [] if there is none. Groups that took no part are empty."""
    def replace_all(self, text: bytes, substitution: bytes) -> bytes:
        """Every non-overlapping match replaced; ``\\0`` to ``\\9`` in the substitution are groups."""
    def check_substitution(self, substitution: bytes) -> None:
        """raises  ModelError if the substitution names a group that the pattern lacks"""
    @property
    def pattern(self) -> bytes: ...

# --- balancing (bind_balance.cpp); picks are in _fast_balance ---

class HostTable:
    """A frozen function from a 64-bit hash to a host; csrc/include/meshsieve/balance/host_table.h."""

    @property
    def bytes(self) -> int: ...
    @property
    def capsule(self) -> object: ...

class MaglevTable(HostTable):
    @property
    def slots(self) -> npt.NDArray[np.int32]: ...

class RingTable(HostTable):
    @property
    def hashes(self) -> npt.NDArray[np.uint64]: ...
    @property
    def hosts(self) -> npt.NDArray[np.int32]: ...

def maglev_table(keys: Sequence[str], weights: Sequence[float], ids: Sequence[int], table_size: int) -> MaglevTable: ...
def katran_table(hashes: Sequence[int], weights: Sequence[int], table_size: int) -> MaglevTable: ...
def ring_table(
    keys: Sequence[str], weights: Sequence[float], ids: Sequence[int], minimum: int, maximum: int, murmur2: bool
) -> RingTable: ...
def cumulative_table(weights: Sequence[int]) -> HostTable: ...
def uniform_table(n_hosts: int) -> HostTable: ...
def level_table(level_of: Sequence[int], levels: Sequence[HostTable]) -> HostTable: ...
def pick_bounded(
    table: HostTable,
    keys: Sequence[str],
    weights: Sequence[float],
    ids: Sequence[int],
    active: Sequence[int],
    factor: int,
    hash: int,
    attempt: int,
) -> int: ...
def xxh64(bytes: bytes, seed: int = ...) -> int: ...
def murmur2_64a(bytes: bytes, seed: int = ...) -> int: ...
def murmur3_pair(a: int, b: int, seed: int) -> int: ...

class EdfRotation:
    def __init__(self, weights: Sequence[int]) -> None: ...
    def next(self) -> int: ...
    def take(self, n: int) -> npt.NDArray[np.int32]: ...
    def copy(self) -> EdfRotation: ...

class SmoothRotation:
    def __init__(self, weights: Sequence[int]) -> None: ...
    def next(self) -> int: ...
    def take(self, n: int) -> npt.NDArray[np.int32]: ...
    def copy(self) -> SmoothRotation: ...

def pack_texts(
    values: Sequence[str | bytes | None],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int32] | None]:
    """Bytes, offsets (values + 1) and codes of a column (None: row i is value i; -1: absent). Text is UTF-8.

    raises  ModelError for a row that is neither text nor None
    """

def tidy_texts(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], fold: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Every value in lower case (``fold``), or without the blanks around it."""

class NativeHttpOptions:
    """A ``routes.HttpOptions`` as the core keeps it."""

    def __init__(self, options: Any) -> None: ...

class RequestBatch:
    """Columns of n requests, checked when they are set; meshsieve.request_columns makes them.

    raises  ModelError for unequal lengths, offsets that leave the data, codes that name nothing
    """

    def __init__(self, n: int) -> None: ...
    def __len__(self) -> int: ...
    @property
    def capsule(self) -> Any: ...
    def set_text(
        self,
        name: str,
        data: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.int64],
        codes: npt.NDArray[np.int32] | None,
        constant: bool,
    ) -> None: ...
    def add_header(
        self,
        name: bytes,
        data: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.int64],
        codes: npt.NDArray[np.int32] | None,
        constant: bool,
    ) -> None: ...
    def set_lines(
        self,
        begin: npt.NDArray[np.int64],
        names: list[bytes],
        name_codes: npt.NDArray[np.int32],
        data: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.int64],
        value_codes: npt.NDArray[np.int32] | None = None,
    ) -> None: ...
    def set_address(self, name: str, words: npt.NDArray[np.uint64], ip_ver: npt.NDArray[np.uint8]) -> None: ...
    def set_number(self, name: str, values: npt.NDArray[np.int64]) -> None: ...
    def row(
        self, row: int
    ) -> tuple[dict[str, bytes], dict[str, tuple[int, int, int]], dict[str, int], list[tuple[bytes, bytes]]]: ...
    def addresses(self, name: str) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
        """uint64 (n, 2) and the IP version of each, 0 where absent."""
    def numbers(self, name: str, missing: int) -> npt.NDArray[np.int64]:
        """int64 (n,); ``missing`` in every row of a batch without the column."""
    def holds(self, name: str, part: bytes) -> npt.NDArray[np.bool_]:
        """bool (n,): rows that have the text, and ``part`` in it."""
    def with_peers(self, codes: npt.NDArray[np.int32], peers: list[bytes]) -> RequestBatch:
        """The same requests over mutual TLS with ``peers[codes[i]]``; -1: as it is, -2: without identity and TLS."""
    def with_contexts(self, codes: npt.NDArray[np.int64]) -> RequestBatch: ...
    def reading(self, row: int, options: NativeHttpOptions) -> tuple[Any, ...]:
        """(why the row is refused or "no", method, scheme, authority or None, target, path, header lines)."""

class RowIndex:
    """Rows of numbers by code: equal rows have one code, the same in every batch, counted from 0."""

    def codes(self, columns: Sequence[npt.NDArray[np.int64]]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """int32 (n,), and the first row of each code that is new, in the codes' order."""
    def find(self, columns: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int32]:
        """int32 (n,): the codes of rows that are known, -1 of others."""
    def __len__(self) -> int: ...
    def clear(self) -> None: ...

class TextIndex:
    """Texts of batches by code, likewise; -1 where a row has none."""

    def codes(self, batch: RequestBatch, name: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]: ...
    def header_codes(self, batch: RequestBatch, name: bytes) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Of the header's lines, with a line end between them; ``name`` in lower case."""
    def value(self, code: int) -> bytes: ...
    def __len__(self) -> int: ...
    def clear(self) -> None: ...

class HostIndex:
    """Authorities by what their host means: its position in ``names`` (lower case, without a dot at the end), -1 for
    any other name. What may be an address or is written oddly has a code of its own, as has every ``exact`` row."""

    def __init__(self, names: list[bytes]) -> None: ...
    def codes(
        self, batch: RequestBatch, exact: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """int32 (n,), and the ports, int64 (n,), -1 for none."""
    def __len__(self) -> int:
        """Number of codes beside those of ``names``."""
    def clear(self) -> None: ...

class PathKind:
    path: PathKind
    prefix: PathKind
    path_separated_prefix: PathKind
    regex: PathKind
    template: PathKind
    connect: PathKind

class RequireTls:
    NONE: RequireTls
    EXTERNAL_ONLY: RequireTls
    ALL: RequireTls

class TextMatch:
    exact: TextMatch
    prefix: TextMatch
    suffix: TextMatch
    contains: TextMatch
    regex: TextMatch

class TreeKind:
    exact: TreeKind
    prefix: TreeKind

class JoinKind:
    and_: JoinKind
    or_: JoinKind
    not_: JoinKind

class RouteTable:
    """A compiled route configuration (csrc/include/meshsieve/route_table.h)."""

    @property
    def stats(self) -> dict[str, int]: ...
    @property
    def header_names(self) -> list[bytes]: ...
    @property
    def capsule(self) -> Any: ...

class RouteTableBuilder:
    """Takes a configuration piece by piece; conditions and texts are named by the numbers returned. on_match: ("group"
    or "tree", its number, keep_matching).

    raises  CompileError beyond the table's limits
    """

    def __init__(
        self,
        options: NativeHttpOptions,
        ignore_port: bool,
        ignore_path_parameters: bool,
        vhost_header: bytes | None,
        default_facts: list[int],
    ) -> None: ...
    def text(self, kind: TextMatch, value: bytes, ignore_case: bool, regex: Regex | None) -> int: ...
    def header_text(self, name: bytes, text: int, invert: bool, missing_as_empty: bool) -> int: ...
    def header_present(self, name: bytes, present: bool, invert: bool, missing_as_empty: bool) -> int: ...
    def header_range(self, name: bytes, low: int, high: int, invert: bool, missing_as_empty: bool) -> int: ...
    def query_text(self, name: bytes, text: int) -> int: ...
    def query_present(self, name: bytes, present: bool) -> int: ...
    def cookie_text(self, name: bytes, text: int, invert: bool) -> int: ...
    def grpc(self) -> int: ...
    def tls(self, validated: bool, wanted: bool) -> int: ...
    def runtime(self, fact: int | None, numerator: int, denominator: int) -> int: ...
    def fact(self, fact: int) -> int: ...
    def begin_host(self, domains: list[bytes], tls: RequireTls) -> int: ...
    def begin_group(self) -> int: ...
    def add_route(
        self,
        kind: PathKind,
        value: bytes,
        case_sensitive: bool,
        regex: Regex | None,
        conditions: list[int],
    ) -> int: ...
    def tree_text(self, header: bytes, text: int) -> int: ...
    def tree_join(self, kind: JoinKind, members: list[int]) -> int: ...
    def tree_list(
        self, entries: list[tuple[int, tuple[str, int, bool]]], no_match: tuple[str, int, bool] | None
    ) -> int: ...
    def tree_map(
        self,
        kind: TreeKind,
        header: bytes,
        entries: list[tuple[bytes, tuple[str, int, bool]]],
        no_match: tuple[str, int, bool] | None,
    ) -> int: ...
    def set_host_tree(self, tree: int) -> None: ...
    def build(self) -> RouteTable: ...
