# cython: language_level=3, boundscheck=False, wraparound=False
"""Authorization tables: compiling filter chains, and decisions in them (the calls that are made millions of times)."""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.unicode cimport PyUnicode_CheckExact
from cython.operator cimport dereference as deref
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport shared_ptr, unique_ptr
from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

cimport numpy as cnp
import numpy as np

from meshsieve.authz.facts import address as text_address
from meshsieve.authz.facts import context_values
from meshsieve.authz.model import Condition, EnvoyTest, Group, Network, Pattern, Ports, Present, Test, Text
from meshsieve.errors import CompileError, ModelError

cnp.import_array()

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef extern from *:
    """
    #include "meshsieve/errors.h"
    namespace {
    // The Python class of meshsieve/errors.py of the same name.
    inline void raise_core_error() {
      const char* name = "CompileError";
      std::string what;
      try {
        throw;
      } catch (const meshsieve::ModelError& e) {
        name = "ModelError";
        what = e.what();
      } catch (const std::exception& e) {
        what = e.what();
      }
      PyObject* module = PyImport_ImportModule("meshsieve.errors");
      PyObject* type = module == nullptr ? nullptr : PyObject_GetAttrString(module, name);
      if (type != nullptr) PyErr_SetString(type, what.c_str());
      Py_XDECREF(type);
      Py_XDECREF(module);
    }
    }  // namespace
    """
    void raise_core_error()

cdef extern from "<string_view>" namespace "std" nogil:
    cdef cppclass string_view:
        string_view()
        string_view(const char* data, size_t size)
        const char* data()
        size_t size()

cdef extern from "meshsieve/request_batch.h" namespace "meshsieve" nogil:
    cdef cppclass U128:
        uint64_t hi
        uint64_t lo
    cdef cppclass RequestBatch:
        size_t n

cdef extern from "meshsieve/http_options.h" namespace "meshsieve" nogil:
    cdef enum class EscapedSlashes(uint8_t):
        keep, reject, unescape_and_redirect, unescape_and_forward
    cdef cppclass HttpOptions:
        cbool normalize_path
        cbool merge_slashes
        EscapedSlashes escaped_slashes
        cbool strip_any_host_port
        cbool strip_matching_host_port
        cbool strip_trailing_host_dot
        int32_t listener_port
        cbool codec

cdef extern from "meshsieve/request_view.h" namespace "meshsieve" nogil:
    cdef cppclass HeaderNames:
        int32_t find(string_view name)
        size_t size()
    cdef cppclass HeaderLine:
        int32_t slot
        string_view value
    cdef cppclass RequestView:
        string_view method, scheme, authority, target
        cbool has_authority
    cdef enum class Refused(uint8_t):
        no
    cdef cppclass RequestScratch:
        vector[HeaderLine] lines
    Refused read_request(const HttpOptions& options, RequestView& view, RequestScratch& scratch)

cdef extern from "meshsieve/authz_table.h" namespace "meshsieve::authz" nogil:
    cdef enum class CField "meshsieve::authz::Field"(uint8_t):
        pass
    cdef enum class COp "meshsieve::authz::Op"(uint8_t):
        pass
    cdef cppclass Address:
        U128 value
        uint8_t version
    cdef cppclass Context:
        vector[pair[uint32_t, string]] values
    cdef cppclass Facts:
        string_view peer, sni
        Address source_ip, remote_ip, destination_ip
        int64_t destination_port
        const RequestView* http
        const Context* context
    cdef enum class StepKind(uint8_t):
        custom, deny, allow, audit, shadow
    cdef cppclass CVerdict "meshsieve::authz::Verdict":
        cbool allowed
        int32_t step, rule, audit, pending, asked
    cdef cppclass Statistics "meshsieve::authz::AuthzTable::Statistics":
        uint64_t rules, tests, regexes, groups, lanes, chains, covered, in_bitmaps, always
        uint64_t template_shapes, longest_list, longest_code
        uint64_t text_bytes, test_bytes, code_bytes, list_bytes, bitmap_bytes, bytes
    cdef cppclass AuthzTable:
        CVerdict decide(uint32_t chain, const Facts& facts, AuthzScratch& scratch, int32_t* found)
        size_t steps(uint32_t chain)
        cbool is_tcp(uint32_t chain)
        size_t chains()
        void prepare(Context& context, AuthzScratch& scratch)
        const HeaderNames& header_names()
        void add_pseudo_headers(RequestView& view, RequestScratch& scratch)
        Statistics statistics()
    cdef cppclass AuthzScratch:
        AuthzScratch()
        void answer(uint32_t opaque, cbool holds)
        void forget()
    cdef cppclass BuilderStep "meshsieve::authz::AuthzBuilder::Step":
        StepKind kind
        vector[uint32_t] rules
    cdef cppclass AuthzBuilder:
        AuthzBuilder()
        uint32_t key(CField field, cbool fold, const string& name) except +raise_core_error
        void look_at_header(const string& name) except +raise_core_error
        uint32_t slot(uint32_t key)
        @staticmethod
        cbool takes(COp op, string_view text)
        uint32_t test(uint32_t key, COp op, string_view text) except +raise_core_error
        uint32_t opaque(uint32_t number) except +raise_core_error
        uint32_t negate(uint32_t node) except +raise_core_error
        uint32_t rule(uint32_t node, cbool allows) except +raise_core_error
        uint32_t chain(const vector[BuilderStep]& steps, cbool tcp) except +raise_core_error
        shared_ptr[const AuthzTable] build() except +raise_core_error nogil
    cdef cppclass AuthzOptions:
        HttpOptions http
        int32_t trusted_proxies
    cdef cppclass FactsScratch:
        RequestScratch request
        RequestView view
        string peer
    cdef cppclass AuthzColumns:
        uint8_t* allowed
        uint8_t* refused
        int32_t* step
        int32_t* rule
        int32_t* audit
        int32_t* pending
        int32_t* asked
    Address address_of(U128 value, uint8_t version)
    Address forwarded_for(const AuthzTable& table, const RequestView& view, int32_t trusted_proxies, Address missing)

cdef extern from *:
    """
    #include <string>
    #include <string_view>
    #include "meshsieve/authz_table.h"
    namespace {
    using meshsieve::authz::AuthzBuilder;
    inline uint32_t any_of(AuthzBuilder& b, const std::vector<uint32_t>& nodes) { return b.any(nodes); }
    inline uint32_t all_of(AuthzBuilder& b, const std::vector<uint32_t>& nodes) { return b.all(nodes); }
    inline void rows_of(const meshsieve::authz::AuthzTable& table, const meshsieve::RequestBatch& batch,
                        const meshsieve::authz::AuthzOptions& options, const uint32_t* chain, bool one_chain,
                        const std::vector<meshsieve::authz::Context>& contexts, size_t begin, size_t end,
                        const meshsieve::authz::AuthzColumns& out) {
      meshsieve::authz::decide_rows(table, batch, options, chain, one_chain, contexts, begin, end, out);
    }
    inline meshsieve::authz::Address dotted(const char* text, size_t size) {
      uint32_t address = 0, octet = 0;
      int digits = 0, dots = 0;
      for (size_t i = 0; i < size; ++i) {
        const char c = text[i];
        if (c == '.') {
          if (digits == 0 || octet > 255) return {};
          address = address << 8 | octet;
          octet = 0, digits = 0, ++dots;
        } else if (c >= '0' && c <= '9' && digits < 3 && !(digits > 0 && octet == 0)) {
          octet = octet * 10 + static_cast<uint32_t>(c - '0');
          ++digits;
        } else {
          return {};
        }
      }
      if (dots != 3 || digits == 0 || octet > 255) return {};
      return {{0, address << 8 | octet}, 4};
    }
    }  // namespace
    """
    uint32_t any_of(AuthzBuilder& b, const vector[uint32_t]& nodes) except +raise_core_error
    uint32_t all_of(AuthzBuilder& b, const vector[uint32_t]& nodes) except +raise_core_error
    void rows_of(const AuthzTable& table, const RequestBatch& batch, const AuthzOptions& options, const uint32_t* chain,
                 cbool one_chain, const vector[Context]& contexts, size_t begin, size_t end, const AuthzColumns& out) nogil
    Address dotted(const char* text, size_t size)

cdef tuple FIELD_KINDS = (
    "peer", "source_ip", "remote_ip", "destination_ip", "destination_port", "sni", "method", "host", "path", "header",
    "claim", "claim_text", "metadata", "metadata_list",
)
cdef tuple OPS = (
    "present", "any", "exact", "prefix", "suffix", "contains", "regex", "template", "namespace", "service_account",
    "trust_domain", "peer_suffix", "network", "ports",
)
cdef dict FIELD_NUMBER = {kind: i for i, kind in enumerate(FIELD_KINDS)}
cdef dict OP_NUMBER = {op: i for i, op in enumerate(OPS)}
cdef uint8_t PRESENT = 0, ANY = 1, REGEX = 6, TEMPLATE = 7, NAMESPACE = 8, PEER_SUFFIX = 11, NETWORK = 12, PORTS = 13
cdef dict PATTERN_FIELDS = {"template": "path", "namespace": "peer", "service_account": "peer", "trust_domain": "peer",
                            "peer_suffix": "peer"}
cdef dict PATTERN_JOINTS = {"namespace": "*", "service_account": "/", "trust_domain": "*"}
STEP_KINDS = ("custom", "deny", "allow", "audit", "shadow")
cdef dict STEP_NUMBER = {kind: i for i, kind in enumerate(STEP_KINDS)}

# Rows between two looks for Ctrl-C: some milliseconds.
cdef size_t CHUNK = 1 << 14


cdef string_view view_of(object text, list keep) except *:
    """The UTF-8 bytes of a text, which live as long as it and ``keep``."""
    cdef Py_ssize_t size = 0
    cdef const char* data
    if PyUnicode_CheckExact(text):
        try:
            data = PyUnicode_AsUTF8AndSize(text, &size)
            return string_view(data, <size_t>size)
        except UnicodeEncodeError:  # bytes that were no UTF-8 where they came from
            pass
    elif not isinstance(text, str):
        raise ModelError(f"expected text, not {type(text).__name__}")
    raw = str(text).encode("utf-8", "surrogateescape")
    keep.append(raw)
    data = raw
    return string_view(data, <size_t>len(raw))


cdef class TableBuilder:
    """Filter chains on their way into a table. Rules are given in the order in which they are reported."""

    cdef AuthzBuilder builder
    cdef dict keys  # (id of a Field, fold) -> key
    cdef list keep  # what those ids are of
    cdef public list opaque  # clauses that only Python can evaluate
    cdef public dict context_fields  # slot -> Field of claims and metadata

    def __cinit__(self):
        self.keys, self.keep, self.opaque, self.context_fields = {}, [], [], {}

    def look_at_header(self, str name):
        self.builder.look_at_header(name.encode("utf-8", "surrogateescape"))

    def rule(self, object rule, bint allows):
        """The number of a rule.

        raises  CompileError
        """
        cdef vector[uint32_t] sides
        sides.push_back(self.alternatives(rule.principals))
        sides.push_back(self.alternatives(rule.permissions))
        return self.builder.rule(all_of(self.builder, sides), allows)

    def chain(self, list steps, bint tcp):
        """The number of a chain of (kind, ascending rule numbers)."""
        cdef vector[BuilderStep] out
        cdef BuilderStep step
        for kind, rules in steps:
            step.kind = <StepKind><uint8_t>STEP_NUMBER[kind]
            step.rules = rules
            out.push_back(step)
        return self.builder.chain(out, tcp)

    def build(self):
        """raises  CompileError"""
        cdef Table table = Table.__new__(Table)
        with nogil:
            table.table = self.builder.build()
        table.opaque, table.context_fields = self.opaque, self.context_fields
        table.reads_headers = table.table.get().header_names().size() > 0
        return table

    cdef uint32_t alternatives(self, tuple alternatives) except *:
        cdef vector[uint32_t] outer
        cdef vector[uint32_t] inner
        for conjunction in alternatives:
            inner.clear()
            for clause in conjunction:
                inner.push_back(self.clause(clause))
            outer.push_back(all_of(self.builder, inner))
        return any_of(self.builder, outer)

    cdef uint32_t clause(self, object clause) except *:
        cdef uint32_t node
        cdef vector[uint32_t] nodes
        kind = type(clause)
        if kind is Test:
            field = clause.field
            for matcher in clause.matchers:
                nodes.push_back(self.test(field, matcher))
            node = any_of(self.builder, nodes)
        elif kind is Group:
            node = self.alternatives(clause.alternatives)
        elif kind is EnvoyTest or kind is Condition:
            self.opaque.append(clause)
            return self.builder.opaque(len(self.opaque) - 1)
        else:
            raise CompileError(f"a clause of an unknown kind: {kind.__name__}")
        return self.builder.negate(node) if clause.negated else node

    cdef uint32_t key(self, object field, bint fold) except *:
        found = self.keys.get((id(field), fold))
        if found is None:
            name = field.key[0] if field.kind == "header" else repr(field.key) if field.key else ""
            found = self.builder.key(
                <CField><uint8_t>FIELD_NUMBER[field.kind], fold, name.encode("utf-8", "surrogateescape"))
            self.keys[id(field), fold] = found
            self.keep.append(field)
            if FIELD_NUMBER[field.kind] > FIELD_NUMBER["header"]:
                self.context_fields.setdefault(self.builder.slot(found), field)
        return found

    cdef uint32_t test(self, object field, object matcher) except *:
        cdef list keep = []
        kind = type(matcher)
        if kind is Text:
            return self.builder.test(self.key(field, matcher.ignore_case), <COp><uint8_t>OP_NUMBER[matcher.op],
                                     view_of(matcher.value, keep))
        if kind is Pattern:
            return self.pattern(field, matcher, keep)
        if kind is Network:
            return self.network(field, matcher)
        if kind is Ports:
            text = matcher.low.to_bytes(4, "big") + matcher.high.to_bytes(4, "big")
            return self.builder.test(self.key(field, False), <COp>PORTS, string_view(text, 8))
        if kind is Present:
            return self.builder.test(self.key(field, False), <COp>PRESENT, string_view())
        raise CompileError(f"a matcher of an unknown kind: {kind.__name__}")

    cdef uint32_t pattern(self, object field, object matcher, list keep) except *:
        cdef uint32_t key = self.key(field, False)
        kind, parts = matcher.kind, matcher.parts
        if kind == "any":
            return self.builder.test(key, <COp>ANY, string_view())
        if PATTERN_FIELDS.get(kind) == field.kind:
            text = PATTERN_JOINTS.get(kind, "").join(parts)
            if AuthzBuilder.takes(<COp><uint8_t>OP_NUMBER[kind], view_of(text, keep)):
                return self.builder.test(key, <COp><uint8_t>OP_NUMBER[kind], view_of(text, keep))
        return self.builder.test(key, <COp>REGEX, view_of(matcher.regex, keep))

    cdef uint32_t network(self, object field, object matcher) except *:
        cdef uint32_t key = self.key(field, False)
        cdef vector[uint32_t] nodes
        low, high, version = matcher.low, matcher.high, matcher.version
        bits = 32 if version == 4 else 128
        while low <= high:  # one prefix, unless it is a range that no CIDR is
            host = min((low & -low).bit_length() - 1 if low else bits, (high - low + 1).bit_length() - 1)
            text = low.to_bytes(16, "big") + bytes((version, bits - host))
            nodes.push_back(self.builder.test(key, <COp>NETWORK, string_view(text, 18)))
            low += 1 << host
        return any_of(self.builder, nodes)


cdef class Contexts:
    """Claims and metadata of a batch's contexts, with the tests that they pass."""

    cdef vector[Context] contexts


cdef class Table:
    """A compiled table. Chains and rules are known by the numbers that ``TableBuilder`` gave."""

    cdef shared_ptr[const AuthzTable] table
    cdef AuthzOptions options
    cdef AuthzScratch scratch  # of scalar calls, which hold the interpreter's lock
    cdef bint reads_headers
    cdef public list opaque
    cdef public dict context_fields
    cdef public tuple rules  # by number

    def set_options(self, object http, int32_t trusted_proxies):
        """What the proxy does to requests first: an ``HttpOptions``."""
        cdef HttpOptions* out = &self.options.http
        actions = ("KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD")
        out.normalize_path, out.merge_slashes, out.codec = http.normalize_path, http.merge_slashes, http.codec
        out.escaped_slashes = <EscapedSlashes><uint8_t>actions.index(http.path_with_escaped_slashes_action)
        out.strip_any_host_port = http.strip_any_host_port
        out.strip_matching_host_port = http.strip_matching_host_port
        out.strip_trailing_host_dot = http.strip_trailing_host_dot
        out.listener_port = http.listener_port or 0
        self.options.trusted_proxies = trusted_proxies

    @property
    def statistics(self):
        cdef Statistics s = self.table.get().statistics()
        return {
            "rules": s.rules, "tests": s.tests, "regexes": s.regexes, "groups": s.groups, "lanes": s.lanes,
            "chains": s.chains, "covered": s.covered, "in_bitmaps": s.in_bitmaps, "always": s.always,
            "template_shapes": s.template_shapes, "longest_list": s.longest_list, "longest_code": s.longest_code, "text_bytes": s.text_bytes,
            "test_bytes": s.test_bytes, "code_bytes": s.code_bytes, "list_bytes": s.list_bytes,
            "bitmap_bytes": s.bitmap_bytes, "bytes": s.bytes,
        }

    def steps(self, uint32_t chain):
        return self.table.get().steps(chain)

    def contexts(self, list values):
        """``values``: by context, pairs of slot and bytes."""
        cdef Contexts out = Contexts.__new__(Contexts)
        cdef Context context
        for pairs in values:
            context.values.clear()
            for slot, value in pairs:
                context.values.push_back(pair[uint32_t, string](<uint32_t>slot, <string>value))
            self.table.get().prepare(context, self.scratch)
            out.contexts.push_back(context)
        return out

    def rows(self, object capsule, const uint32_t[::1] chain, Contexts contexts not None, size_t begin, size_t end,
             cnp.ndarray allowed, cnp.ndarray refused, cnp.ndarray step, cnp.ndarray rule, cnp.ndarray audit,
             cnp.ndarray pending, cnp.ndarray asked):
        """Fills rows [begin, end) of the columns, without the interpreter's lock."""
        cdef RequestBatch* batch = <RequestBatch*>PyCapsule_GetPointer(capsule, b"meshsieve.RequestBatch/1")
        cdef AuthzColumns out
        cdef size_t at = begin
        cdef size_t to
        cdef bint one = chain.shape[0] == 1
        out.allowed, out.refused = <uint8_t*>cnp.PyArray_DATA(allowed), <uint8_t*>cnp.PyArray_DATA(refused)
        out.step, out.rule = <int32_t*>cnp.PyArray_DATA(step), <int32_t*>cnp.PyArray_DATA(rule)
        out.audit, out.pending = <int32_t*>cnp.PyArray_DATA(audit), <int32_t*>cnp.PyArray_DATA(pending)
        out.asked = <int32_t*>cnp.PyArray_DATA(asked)
        while at < end:
            to = min(at + CHUNK, end)
            with nogil:
                rows_of(deref(self.table), deref(batch), self.options, &chain[0], one, contexts.contexts, at, to,
                        out)
            PyErr_CheckSignals()
            at = to

    def one(self, uint32_t chain, object request, dict answers, list found):
        """One ``Request``: (refused, allowed, step, rule, audit, pending, asked).

        answers  by opaque clause; found: None, or a list to be filled with each step's rule, -1 or -2 = not reached
        """
        cdef list keep = []
        cdef Facts facts
        cdef FactsScratch memory
        cdef Context context
        cdef Refused refused = Refused.no
        cdef vector[int32_t] by_step
        cdef vector[pair[uint32_t, cbool]] known
        cdef size_t i
        cdef CVerdict verdict
        for number, holds in answers.items():
            known.push_back(pair[uint32_t, cbool](<uint32_t>number, <cbool>holds))
        facts.destination_port = -1
        if not self.table.get().is_tcp(chain):
            refused = self.read(facts, memory, request.method, request.scheme, request.authority, request.path, request.headers,
                                keep)
            if refused != Refused.no:
                return <int>refused, False, -1, -1, -2, -1, -1
        self.connection(facts, memory, request.principal, request.source_ip, request.remote_ip, request.destination_ip,
                        request.destination_port, request.sni, keep)
        if self.context_fields:
            self.take_context(facts, context, request, keep)
        by_step.resize(self.table.get().steps(chain) if found is not None else 0)
        # Nothing of Python's from here to the verdict, so that no other thread comes between.
        for i in range(known.size()):
            self.scratch.answer(known[i].first, known[i].second)
        verdict = self.table.get().decide(chain, facts, self.scratch, by_step.data() if found is not None else NULL)
        self.scratch.forget()
        if found is not None:
            found[:] = by_step
        return 0, verdict.allowed, verdict.step, verdict.rule, verdict.audit, verdict.pending, verdict.asked

    cdef object check(self, uint32_t chain, object method, object path, object authority, object principal,
                      object source_ip, object destination_port, object headers, object request):
        """(allowed, rule or None); None where a provider or a clause of Python's has to be asked first."""
        cdef list keep = []
        cdef Facts facts
        cdef FactsScratch memory
        cdef Context context
        cdef CVerdict verdict
        if chain >= self.table.get().chains():
            raise IndexError(f"there are {self.table.get().chains()} chains, no number {chain}")
        facts.destination_port = -1
        if not self.table.get().is_tcp(chain):
            if self.read(facts, memory, method, "http", authority, path, headers, keep) != Refused.no:
                return False, None
        self.connection(facts, memory, principal, source_ip, None, None, destination_port, None, keep)
        if request is not None and self.context_fields:
            self.take_context(facts, context, request, keep)
        verdict = self.table.get().decide(chain, facts, self.scratch, NULL)
        if verdict.asked >= 0 or verdict.pending >= 0:
            return None
        return verdict.allowed, self.rules[verdict.rule] if verdict.rule >= 0 else None

    cdef Refused read(self, Facts& facts, FactsScratch& memory, object method, object scheme, object authority,
                      object path, object headers, list keep) except *:
        cdef HeaderLine line
        memory.view.method = view_of(method, keep)
        memory.view.scheme = view_of(scheme, keep)
        memory.view.authority = view_of(authority, keep)
        memory.view.has_authority = memory.view.authority.size() > 0
        memory.view.target = view_of(path, keep)
        memory.request.lines.clear()
        if headers and self.reads_headers:
            for name, value in headers:
                folded = name.encode("utf-8", "surrogateescape").lower()
                line.slot = self.table.get().header_names().find(string_view(folded, len(folded)))
                if line.slot >= 0:
                    value = value.encode("utf-8", "surrogateescape").strip(b" \t")
                    keep.append(value)
                    line.value = string_view(value, len(value))
                    memory.request.lines.push_back(line)
        cdef Refused refused = read_request(self.options.http, memory.view, memory.request)
        if refused == Refused.no:
            self.table.get().add_pseudo_headers(memory.view, memory.request)
            facts.http = &memory.view
        return refused

    cdef int connection(self, Facts& facts, FactsScratch& memory, object principal, object source_ip, object remote_ip,
                        object destination_ip, object destination_port, object sni, list keep) except -1:
        cdef string_view text
        if principal is not None:
            text = view_of(principal, keep)
            memory.peer.assign(text.data(), text.size())
            if memory.peer.compare(0, 9, b"spiffe://") != 0:
                memory.peer.insert(0, b"spiffe://")
            facts.peer = string_view(memory.peer.data(), memory.peer.size())
        if sni is not None:
            facts.sni = view_of(sni, keep)
        if source_ip is not None:
            facts.source_ip = address(source_ip, "source_ip")
        if destination_ip is not None:
            facts.destination_ip = address(destination_ip, "destination_ip")
        if remote_ip is not None:
            facts.remote_ip = address(remote_ip, "remote_ip")
        elif self.options.trusted_proxies > 0 and facts.http != NULL:
            facts.remote_ip = forwarded_for(
                deref(self.table), deref(facts.http), self.options.trusted_proxies, facts.source_ip)
        else:
            facts.remote_ip = facts.source_ip
        if destination_port is not None:
            facts.destination_port = destination_port
        return 0

    cdef int take_context(self, Facts& facts, Context& context, object request, list keep) except -1:
        claims, metadata = request.claims, request.dynamic_metadata
        if not claims and not metadata:
            return 0
        for slot, field in self.context_fields.items():
            # The common case without a call: a text, or a list of them, at the top of a token.
            kind = field.kind
            if kind == "claim" and len(field.key) == 1 and type(claims) is dict:
                value = claims.get(field.key[0])
                if type(value) is str:
                    put_value(context, slot, value, keep)
                elif type(value) is list:
                    for item in value:
                        if isinstance(item, str):
                            put_value(context, slot, item, keep)
                elif value is not None:
                    for raw in context_values(request, field):
                        context.values.push_back(pair[uint32_t, string](<uint32_t>slot, <string>raw))
            else:
                for raw in context_values(request, field):
                    context.values.push_back(pair[uint32_t, string](<uint32_t>slot, <string>raw))
        self.table.get().prepare(context, self.scratch)
        facts.context = &context
        return 0


cdef class Checker:
    """The quick call, in the table of the moment; ``_ask`` answers where it cannot."""

    cdef public Table table

    def check(self, method="GET", path="/", authority="", principal=None, source_ip=None, destination_port=None, *,
              headers=(), request=None, uint32_t chain=0):
        """Whether a request is allowed, and the rule that decided: (bool, Rule or None).

        request  where claims and metadata are taken from; its other fields are not looked at
        raises   ModelError for an address that is none, IndexError for a chain that is none
        """
        cdef Table table = self.table
        found = table.check(chain, method, path, authority, principal, source_ip, destination_port, headers, request)
        if found is None:
            return self._ask(method, path, authority, principal, source_ip, destination_port, headers, request, chain)
        return found


cdef int put_value(Context& context, uint32_t slot, object text, list keep) except -1:
    cdef string_view view = view_of(text, keep)
    context.values.push_back(pair[uint32_t, string](slot, string(view.data(), view.size())))
    return 0


cdef Address address(object text, str name) except *:
    cdef Address out
    cdef U128 words
    cdef Py_ssize_t size = 0
    cdef const char* data
    if PyUnicode_CheckExact(text) and (<str>text).isascii():
        data = PyUnicode_AsUTF8AndSize(text, &size)
        out = dotted(data, <size_t>size)
        if out.version != 0:
            return out
    version, number = text_address(text, name)
    words.hi, words.lo = number >> 64, number & 0xFFFFFFFFFFFFFFFF
    return address_of(words, version)
