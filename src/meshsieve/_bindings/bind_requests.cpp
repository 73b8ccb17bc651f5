// RequestBatch: columns checked once, then read without the lock. The facade is meshsieve.request_columns.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <unordered_map>

#include "bindings.h"
#include "meshsieve/errors.h"
#include "meshsieve/request_view.h"
#include "request_handle.h"

namespace py = pybind11;
using namespace meshsieve;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;
template <class T>
using MaybeArray = std::optional<Array<T>>;

constexpr const char* kTexts[] = {"method", "scheme", "authority", "path", "sni", "alpn", "principal"};
constexpr const char* kAddresses[] = {"source_ip", "destination_ip", "remote_ip"};
constexpr const char* kNumbers[] = {"source_port", "destination_port", "random_value", "tls", "context", "time_ns", "random_given"};
static_assert(std::size(kTexts) == kRequestTexts && std::size(kAddresses) == kRequestAddresses &&
              std::size(kNumbers) == kRequestNumbers);

template <size_t N>
size_t position(const char* const (&names)[N], const std::string& name) {
  for (size_t i = 0; i < N; ++i)
    if (name == names[i]) return i;
  throw ModelError("a request batch has no column " + name);
}

void require(bool holds, const std::string& name, const char* what) {
  if (!holds) throw ModelError("column " + name + ": " + what);
}

// data, offsets, codes (or None) and whether one value stands for all rows.
TextColumn text_column(RequestHandle& handle, const std::string& name, const Array<uint8_t>& data,
                       const Array<int64_t>& offsets, const MaybeArray<int32_t>& codes, size_t rows, bool constant) {
  require(offsets.size() >= 1, name, "offsets are empty");
  const int64_t* ends = offsets.data();
  const int64_t values = offsets.size() - 1;
  require(ends[0] >= 0 && ends[values] <= data.size(), name, "offsets leave the data");
  for (int64_t i = 0; i < values; ++i) require(ends[i] <= ends[i + 1], name, "offsets descend");
  const size_t wanted = constant ? 1 : rows;
  if (codes) {
    require(static_cast<size_t>(codes->size()) == wanted, name, "differs in length from the batch");
    for (py::ssize_t i = 0; i < codes->size(); ++i)
      require(codes->data()[i] >= -1 && codes->data()[i] < values, name, "a code names no value");
    handle.owners.append(*codes);
  } else {
    require(static_cast<size_t>(values) == wanted, name, "differs in length from the batch");
  }
  handle.owners.append(data);
  handle.owners.append(offsets);
  return {reinterpret_cast<const char*>(data.data()), ends, codes ? codes->data() : nullptr, constant ? size_t{0} : 1};
}

// (bytes as uint8, offsets int64, codes int32 or None) of str, bytes and None; None becomes code -1.
py::tuple pack_texts(const py::sequence& values) {
  const py::object fast = py::reinterpret_steal<py::object>(PySequence_Fast(values.ptr(), "a column of text"));
  if (!fast) throw py::error_already_set();
  const Py_ssize_t n = PySequence_Fast_GET_SIZE(fast.ptr());
  std::string data;
  std::vector<int64_t> offsets{0};
  std::vector<int32_t> codes;
  offsets.reserve(static_cast<size_t>(n) + 1);
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* value = PySequence_Fast_GET_ITEM(fast.ptr(), i);
    Py_ssize_t size = 0;
    if (value == Py_None) {
      if (codes.empty())
        for (Py_ssize_t k = 0; k < i; ++k) codes.push_back(static_cast<int32_t>(k));
      codes.push_back(-1);
      continue;
    }
    if (PyUnicode_CheckExact(value)) {
      if (const char* text = PyUnicode_AsUTF8AndSize(value, &size)) {
        data.append(text, static_cast<size_t>(size));
      } else {  // lone surrogates: bytes that were no UTF-8 where they came from
        PyErr_Clear();
        const py::object raw =
            py::reinterpret_steal<py::object>(PyUnicode_AsEncodedString(value, "utf-8", "surrogateescape"));
        if (!raw) throw py::error_already_set();
        data.append(PyBytes_AS_STRING(raw.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(raw.ptr())));
      }
    } else if (PyBytes_CheckExact(value)) {
      data.append(PyBytes_AS_STRING(value), static_cast<size_t>(PyBytes_GET_SIZE(value)));
    } else {
      throw ModelError("row " + std::to_string(i) + " is " + Py_TYPE(value)->tp_name + ", expected text");
    }
    if (!codes.empty()) codes.push_back(static_cast<int32_t>(offsets.size()) - 1);
    offsets.push_back(static_cast<int64_t>(data.size()));
  }
  const auto copied = [](const auto& items) {
    using T = std::decay_t<decltype(items[0])>;
    return Array<T>(static_cast<py::ssize_t>(items.size()), items.data());
  };
  Array<uint8_t> bytes(static_cast<py::ssize_t>(data.size()), reinterpret_cast<const uint8_t*>(data.data()));
  return py::make_tuple(bytes, copied(offsets), codes.empty() ? py::object(py::none()) : copied(codes));
}

// Bytes of each value in lower case and without blanks around it: header names, and values if `fold` is false.
py::tuple tidy_texts(const Array<uint8_t>& data, const Array<int64_t>& offsets, bool fold) {
  const char* bytes = reinterpret_cast<const char*>(data.data());
  std::string out;
  std::vector<int64_t> ends{0};
  for (py::ssize_t i = 0; i + 1 < offsets.size(); ++i) {
    const int64_t from = offsets.data()[i], to = offsets.data()[i + 1];
    if (from < 0 || from > to || to > data.size()) throw ModelError("offsets leave the data or descend");
    std::string_view value(bytes + from, static_cast<size_t>(to - from));
    if (!fold) {
      while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
      while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
    }
    for (const char c : value) out.push_back(fold && c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c);
    ends.push_back(static_cast<int64_t>(out.size()));
  }
  return py::make_tuple(
      Array<uint8_t>(static_cast<py::ssize_t>(out.size()), reinterpret_cast<const uint8_t*>(out.data())),
      Array<int64_t>(static_cast<py::ssize_t>(ends.size()), ends.data()));
}

HttpOptions http_options(const py::object& options) {
  HttpOptions out;
  out.normalize_path = options.attr("normalize_path").cast<bool>();
  out.merge_slashes = options.attr("merge_slashes").cast<bool>();
  const std::string action = options.attr("path_with_escaped_slashes_action").cast<std::string>();
  out.escaped_slashes = action == "REJECT_REQUEST"          ? EscapedSlashes::reject
                        : action == "UNESCAPE_AND_REDIRECT" ? EscapedSlashes::unescape_and_redirect
                        : action == "UNESCAPE_AND_FORWARD"  ? EscapedSlashes::unescape_and_forward
                                                            : EscapedSlashes::keep;
  out.strip_any_host_port = options.attr("strip_any_host_port").cast<bool>();
  out.strip_matching_host_port = options.attr("strip_matching_host_port").cast<bool>();
  out.strip_trailing_host_dot = options.attr("strip_trailing_host_dot").cast<bool>();
  const py::object port = options.attr("listener_port");
  out.listener_port = port.is_none() ? 0 : port.cast<int32_t>();
  out.codec = options.attr("codec").cast<bool>();
  return out;
}

// What read_request makes of a row: ("no" or why it is refused, method, scheme, authority or None, target, path,
// [(name, value)]). For tests and explanations.
py::tuple reading(const RequestHandle& handle, size_t row, const HttpOptions& options) {
  if (row >= handle.batch.n) throw py::index_error();
  static constexpr const char* kReasons[] = {"no", "codec", "escaped_slash", "escaped_nul", "redirect_unescaped"};
  HeaderNames names;
  for (const auto& column : handle.batch.header_columns) names.slot(column.name);
  for (const std::string& name : handle.batch.line_names) names.slot(name);
  RequestView view;
  RequestScratch scratch;
  const Refused refused = BatchReader(handle.batch, options, names).read(row, view, scratch);
  const auto bytes = [](std::string_view text) { return py::bytes(text.data(), text.size()); };
  py::list lines;
  for (const HeaderLine& line : view.headers)
    lines.append(py::make_tuple(py::bytes(names.names()[static_cast<size_t>(line.slot)]), bytes(line.value)));
  return py::make_tuple(kReasons[static_cast<int>(refused)], bytes(view.method), bytes(view.scheme),
                        view.has_authority ? py::object(bytes(view.authority)) : py::none(), bytes(view.target),
                        bytes(view.path()), lines);
}

// A row as it was given: ({name: bytes}, {name: (hi, lo, IP version)}, {name: number}, [(header name, value)]).
py::tuple row_of(const RequestHandle& handle, size_t row) {
  const RequestBatch& batch = handle.batch;
  if (row >= batch.n) throw py::index_error();
  const auto bytes = [](std::string_view text) { return py::bytes(text.data(), text.size()); };
  py::dict texts, addresses, numbers;
  py::list lines;
  std::string_view value;
  for (size_t i = 0; i < kRequestTexts; ++i)
    if (batch.text[i].get(row, value)) texts[kTexts[i]] = bytes(value);
  for (size_t i = 0; i < kRequestAddresses; ++i) {
    const AddressColumn& column = batch.address[i];
    if (column.ip_ver != nullptr && column.ip_ver[row] != 0)
      addresses[kAddresses[i]] = py::make_tuple(column.address[row].hi, column.address[row].lo, column.ip_ver[row]);
  }
  for (size_t i = 0; i < kRequestNumbers; ++i)
    if (batch.number[i] != nullptr) numbers[kNumbers[i]] = batch.number[i][row];
  for (const RequestBatch::HeaderColumn& column : batch.header_columns)
    if (column.value.get(row, value)) lines.append(py::make_tuple(py::bytes(column.name), bytes(value)));
  for (int64_t i = batch.line_begin ? batch.line_begin[row] : 0; batch.line_begin && i < batch.line_begin[row + 1]; ++i)
    lines.append(py::make_tuple(py::bytes(batch.line_names[static_cast<size_t>(batch.line_name[i])]),
                                bytes(batch.line_value.value_or(static_cast<size_t>(i), ""))));
  return py::make_tuple(texts, addresses, numbers, lines);
}

// (uint64 (n, 2), uint8 (n,)): words and IP versions of an address column; version 0 is absent.
py::tuple address_column(const RequestHandle& handle, const std::string& name) {
  const AddressColumn& column = handle.batch.address[position(kAddresses, name)];
  const auto n = static_cast<py::ssize_t>(handle.batch.n);
  Array<uint64_t> words({n, py::ssize_t{2}});
  Array<uint8_t> versions(n);
  std::memset(words.mutable_data(), 0, static_cast<size_t>(words.nbytes()));
  std::memset(versions.mutable_data(), 0, static_cast<size_t>(n));
  if (column.ip_ver != nullptr) {
    std::memcpy(words.mutable_data(), column.address, static_cast<size_t>(words.nbytes()));
    std::memcpy(versions.mutable_data(), column.ip_ver, static_cast<size_t>(n));
  }
  return py::make_tuple(words, versions);
}

// int64 (n,): a number column, `missing` in every row if the batch has none of that name.
Array<int64_t> number_column(const RequestHandle& handle, const std::string& name, int64_t missing) {
  const int64_t* column = handle.batch.number[position(kNumbers, name)];
  Array<int64_t> out(static_cast<py::ssize_t>(handle.batch.n));
  if (column != nullptr) std::copy_n(column, handle.batch.n, out.mutable_data());
  else std::fill_n(out.mutable_data(), handle.batch.n, missing);
  return out;
}

// bool (n,): rows whose text is there and holds `part`.
Array<bool> holds(const RequestHandle& handle, const std::string& name, const std::string& part) {
  const TextColumn& column = text_of(handle.batch, name);
  Array<bool> out(static_cast<py::ssize_t>(handle.batch.n));
  std::string_view text;
  for (size_t row = 0; row < handle.batch.n; ++row)
    out.mutable_data()[row] = column.get(row, text) && text.find(part) != std::string_view::npos;
  return out;
}

constexpr int32_t kKeepPeer = -1;
constexpr int32_t kNoPeer = -2;

// The batch with other identities: codes[i] is the peer of row i among `peers`, over mutual TLS; or it is kept, or none.
std::unique_ptr<RequestHandle> with_peers(const RequestHandle& handle, const Array<int32_t>& codes,
                                          const std::vector<std::string>& peers) {
  const size_t n = handle.batch.n;
  if (static_cast<size_t>(codes.size()) != n) throw ModelError("peers differ in length from the batch");
  auto out = std::make_unique<RequestHandle>();
  out->batch = handle.batch;
  out->owners.append(handle.owners);
  const TextColumn& before = handle.batch[RequestText::principal];
  Array<int32_t> values(static_cast<py::ssize_t>(n));
  Array<int64_t> tls = number_column(handle, "tls", 0);
  std::string data;
  std::vector<int64_t> ends{0};
  const auto add = [&](std::string_view text) {
    data.append(text);
    ends.push_back(static_cast<int64_t>(data.size()));
    return static_cast<int32_t>(ends.size()) - 2;
  };
  for (const std::string& peer : peers) add(peer);
  std::unordered_map<const char*, int32_t> kept;  // by where the text lies: equal texts of one dictionary are one
  for (size_t row = 0; row < n; ++row) {
    const int32_t code = codes.data()[row];
    std::string_view text;
    int32_t& value = values.mutable_data()[row];
    value = -1;
    if (code >= 0) {
      if (static_cast<size_t>(code) >= peers.size()) throw ModelError("a code names no peer");
      value = code;
      tls.mutable_data()[row] = kTlsKnown | kTlsPresented | kTlsValidated;
    } else if (code == kNoPeer) {
      tls.mutable_data()[row] = 0;
    } else if (code != kKeepPeer) {
      throw ModelError("a code names no peer");
    } else if (before.get(row, text)) {
      const auto [at, fresh] = kept.try_emplace(text.data(), 0);
      if (fresh || text.empty()) at->second = add(text);
      value = at->second;
    }
  }
  Array<uint8_t> bytes(static_cast<py::ssize_t>(data.size()), reinterpret_cast<const uint8_t*>(data.data()));
  Array<int64_t> offsets(static_cast<py::ssize_t>(ends.size()), ends.data());
  out->batch.text[static_cast<size_t>(RequestText::principal)] =
      text_column(*out, "principal", bytes, offsets, values, n, false);
  out->batch.number[static_cast<size_t>(RequestNumber::tls)] = tls.data();
  out->owners.append(tls);
  return out;
}

// The batch with another `context` column.
std::unique_ptr<RequestHandle> with_contexts(const RequestHandle& handle, const Array<int64_t>& codes) {
  if (static_cast<size_t>(codes.size()) != handle.batch.n) throw ModelError("contexts differ in length from the batch");
  auto out = std::make_unique<RequestHandle>();
  out->batch = handle.batch;
  out->owners.append(handle.owners);
  out->batch.number[static_cast<size_t>(RequestNumber::context)] = codes.data();
  out->owners.append(codes);
  return out;
}

}  // namespace

const TextColumn& text_of(const RequestBatch& batch, const std::string& name) {
  return batch.text[position(kTexts, name)];
}

void bind_requests(py::module_& module) {
  module.def("pack_texts", &pack_texts, py::arg("values"));
  module.def("tidy_texts", &tidy_texts, py::arg("data"), py::arg("offsets"), py::arg("fold"));
  py::class_<HttpOptions>(module, "NativeHttpOptions").def(py::init(&http_options), py::arg("options"));
  py::class_<RequestHandle>(module, "RequestBatch")
      .def(py::init([](size_t n) {
             auto handle = std::make_unique<RequestHandle>();
             handle->batch.n = n;
             return handle;
           }),
           py::arg("n"))
      .def("__len__", [](const RequestHandle& handle) { return handle.batch.n; })
      .def(
          "set_text",
          [](RequestHandle& handle, const std::string& name, const Array<uint8_t>& data, const Array<int64_t>& offsets,
             const MaybeArray<int32_t>& codes, bool constant) {
            handle.batch.text[position(kTexts, name)] =
                text_column(handle, name, data, offsets, codes, handle.batch.n, constant);
          },
          py::arg("name"), py::arg("data"), py::arg("offsets"), py::arg("codes"), py::arg("constant"))
      .def(
          "add_header",
          [](RequestHandle& handle, const std::string& name, const Array<uint8_t>& data, const Array<int64_t>& offsets,
             const MaybeArray<int32_t>& codes, bool constant) {
            const TextColumn column = text_column(handle, name, data, offsets, codes, handle.batch.n, constant);
            handle.batch.header_columns.push_back({name, column});
          },
          py::arg("name"), py::arg("data"), py::arg("offsets"), py::arg("codes"), py::arg("constant"))
      .def(
          "set_lines",
          [](RequestHandle& handle, const Array<int64_t>& begin, const std::vector<std::string>& names,
             const Array<int32_t>& name_codes, const Array<uint8_t>& data, const Array<int64_t>& offsets,
             const MaybeArray<int32_t>& value_codes) {
            RequestBatch& batch = handle.batch;
            require(static_cast<size_t>(begin.size()) == batch.n + 1, "headers", "row offsets differ from the batch");
            const int64_t lines = name_codes.size();
            require(begin.data()[0] == 0 && begin.data()[batch.n] == lines, "headers", "row offsets leave the lines");
            for (size_t i = 0; i < batch.n; ++i)
              require(begin.data()[i] <= begin.data()[i + 1], "headers", "row offsets descend");
            for (int64_t i = 0; i < lines; ++i)
              require(name_codes.data()[i] >= 0 && static_cast<size_t>(name_codes.data()[i]) < names.size(), "headers",
                      "a code names no name");
            const size_t n_lines = static_cast<size_t>(lines);
            batch.line_value = text_column(handle, "headers", data, offsets, value_codes, n_lines, false);
            batch.line_names = names;
            batch.line_begin = begin.data();
            batch.line_name = name_codes.data();
            handle.owners.append(begin);
            handle.owners.append(name_codes);
          },
          py::arg("begin"), py::arg("names"), py::arg("name_codes"), py::arg("data"), py::arg("offsets"),
          py::arg("value_codes") = py::none())
      .def(
          "set_address",
          [](RequestHandle& handle, const std::string& name, const Array<uint64_t>& words,
             const Array<uint8_t>& ip_ver) {
            require(words.ndim() == 2 && words.shape(1) == 2 && static_cast<size_t>(words.shape(0)) == handle.batch.n &&
                        static_cast<size_t>(ip_ver.size()) == handle.batch.n,
                    name, "differs in length from the batch");
            const U128* addresses = reinterpret_cast<const U128*>(words.data());
            handle.batch.address[position(kAddresses, name)] = {addresses, ip_ver.data()};
            handle.owners.append(words);
            handle.owners.append(ip_ver);
          },
          py::arg("name"), py::arg("words"), py::arg("ip_ver"))
      .def(
          "set_number",
          [](RequestHandle& handle, const std::string& name, const Array<int64_t>& values) {
            require(static_cast<size_t>(values.size()) == handle.batch.n, name, "differs in length from the batch");
            handle.batch.number[position(kNumbers, name)] = values.data();
            handle.owners.append(values);
          },
          py::arg("name"), py::arg("values"))
      .def("addresses", &address_column, py::arg("name"))
      .def("numbers", &number_column, py::arg("name"), py::arg("missing"))
      .def("holds", &holds, py::arg("name"), py::arg("part"))
      .def("with_peers", &with_peers, py::arg("codes"), py::arg("peers"))
      .def("with_contexts", &with_contexts, py::arg("codes"))
      .def("row", &row_of, py::arg("row"))
      .def("reading", &reading, py::arg("row"), py::arg("options"))
      .def_property_readonly("capsule",
                             [](RequestHandle& handle) { return py::capsule(&handle.batch, kRequestCapsule); });
}
