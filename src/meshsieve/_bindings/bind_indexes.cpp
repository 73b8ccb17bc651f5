// RowIndex, TextIndex, HostIndex: what rows of a batch have in common, as codes that stay valid from batch to batch.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "meshsieve/errors.h"
#include "meshsieve/key_index.h"
#include "request_handle.h"

namespace py = pybind11;
using namespace meshsieve;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class T>
Array<T> copied(const std::vector<T>& items) {
  return Array<T>(static_cast<py::ssize_t>(items.size()), items.data());
}

// Codes of n keys and the first row of every code that is new: (int32 (n,), int64 (new,)). key_of(row, out) is false for
// a row without a key, whose code is -1.
template <class KeyOf>
py::tuple codes_of(KeyIndex& index, size_t n, KeyOf key_of) {
  Array<int32_t> codes(static_cast<py::ssize_t>(n));
  int32_t* out = codes.mutable_data();
  std::vector<int64_t> firsts;
  std::string_view key;
  for (size_t row = 0; row < n; ++row) {
    if (!key_of(row, key)) {
      out[row] = KeyIndex::kMissing;
      continue;
    }
    const int32_t before = index.size();
    out[row] = index.code(key);
    if (out[row] == before) firsts.push_back(static_cast<int64_t>(row));
  }
  return py::make_tuple(codes, copied(firsts));
}

// Rows of equally long columns, one after another as bytes.
class Rows {
 public:
  explicit Rows(const std::vector<Array<int64_t>>& columns) : packed_(columns.size()) {
    if (columns.empty()) throw ModelError("rows need at least one column");
    n_ = static_cast<size_t>(columns[0].size());
    for (const auto& column : columns) {
      if (static_cast<size_t>(column.size()) != n_ || column.ndim() != 1) throw ModelError("columns differ in length");
      data_.push_back(column.data());
    }
  }
  size_t size() const { return n_; }
  std::string_view operator[](size_t row) {
    for (size_t i = 0; i < data_.size(); ++i) packed_[i] = data_[i][row];
    return {reinterpret_cast<const char*>(packed_.data()), packed_.size() * sizeof(int64_t)};
  }

 private:
  size_t n_;
  std::vector<const int64_t*> data_;
  std::vector<int64_t> packed_;
};

py::tuple row_codes(KeyIndex& index, const std::vector<Array<int64_t>>& columns) {
  Rows rows(columns);
  return codes_of(index, rows.size(), [&](size_t row, std::string_view& key) {
    key = rows[row];
    return true;
  });
}

Array<int32_t> known_rows(const KeyIndex& index, const std::vector<Array<int64_t>>& columns) {
  Rows rows(columns);
  Array<int32_t> codes(static_cast<py::ssize_t>(rows.size()));
  for (size_t row = 0; row < rows.size(); ++row) codes.mutable_data()[row] = index.find(rows[row]);
  return codes;
}

// The lines of a header in each row, with a line end between them; header columns come before lines.
py::tuple header_codes(KeyIndex& index, const RequestHandle& handle, const std::string& name) {
  const RequestBatch& batch = handle.batch;
  std::vector<const TextColumn*> columns;
  for (const RequestBatch::HeaderColumn& column : batch.header_columns)
    if (column.name == name) columns.push_back(&column.value);
  std::vector<uint8_t> wanted;
  for (const std::string& line : batch.line_names) wanted.push_back(line == name);
  std::string joined;
  return codes_of(index, batch.n, [&](size_t row, std::string_view& key) {
    size_t found = 0;
    const auto add = [&](std::string_view value) {
      if (found == 1) joined.assign(key);
      if (found++ == 0) {
        key = value;
      } else {
        joined.append("\n").append(value);
        key = joined;
      }
    };
    std::string_view value;
    for (const TextColumn* column : columns)
      if (column->get(row, value)) add(value);
    const int64_t end = batch.line_begin == nullptr ? 0 : batch.line_begin[row + 1];
    for (int64_t i = batch.line_begin == nullptr ? 0 : batch.line_begin[row]; i < end; ++i) {
      const bool ours = wanted[static_cast<size_t>(batch.line_name[i])] != 0;
      if (ours && batch.line_value.get(static_cast<size_t>(i), value)) add(value);
    }
    return found > 0;
  });
}

// Authorities by what their host means.
//
// A host among `names` has its position; any other name has -1, so that names which nobody knows are one. What might be
// an address, is not ASCII or has an odd port is a code of its own, as is every host of a row that is `exact`.
struct HostIndex {
  KeyIndex names;
  KeyIndex others;
};

// host and port as meshsieve.mesh.istio.mesh.split_authority; false for a port that it reads in another way.
bool split(std::string_view authority, std::string_view& host, int64_t& port) {
  host = authority;
  port = -1;
  const size_t colon = authority.rfind(':');
  if (colon == std::string_view::npos) return true;
  const std::string_view digits = authority.substr(colon + 1);
  const std::string_view before = authority.substr(0, colon);
  if (digits.find(']') != std::string_view::npos || before.find(':') != std::string_view::npos) return false;
  if (digits.empty() || digits.size() > 5) return false;
  port = 0;
  for (const char c : digits) {
    if (c < '0' || c > '9') return false;
    port = port * 10 + (c - '0');
  }
  host = before;
  return port > 0 && port < 65536;
}

py::tuple host_codes(HostIndex& index, const RequestHandle& handle, const Array<uint8_t>& exact) {
  const size_t n = handle.batch.n;
  if (static_cast<size_t>(exact.size()) != n) throw ModelError("exact needs a value a row");
  Array<int32_t> codes(static_cast<py::ssize_t>(n));
  Array<int64_t> ports(static_cast<py::ssize_t>(n));
  int32_t* out = codes.mutable_data();
  std::string folded;
  for (size_t row = 0; row < n; ++row) {
    const std::string_view authority = handle.batch[RequestText::authority].value_or(row, "");
    std::string_view host;
    int64_t& port = ports.mutable_data()[row];
    bool odd = !split(authority, host, port) || exact.data()[row] != 0;
    bool numeric = true;
    folded.assign(host);
    for (char& c : folded) {
      odd |= static_cast<unsigned char>(c) >= 0x80 || c == ':' || c == '[' || c == ']';
      numeric &= (c >= '0' && c <= '9') || c == '.';
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
    }
    if (!folded.empty() && folded.back() == '.') folded.pop_back();
    out[row] = odd || numeric ? index.names.size() + index.others.code(authority) : index.names.find(folded);
  }
  return py::make_tuple(codes, ports);
}

}  // namespace

void bind_indexes(py::module_& module) {
  struct RowIndex {
    KeyIndex index;
  };
  struct TextIndex {
    KeyIndex index;
  };
  py::class_<RowIndex>(module, "RowIndex")
      .def(py::init<>())
      .def(
          "codes", [](RowIndex& self, const std::vector<Array<int64_t>>& columns) {
            return row_codes(self.index, columns);
          },
          py::arg("columns"))
      .def(
          "find", [](const RowIndex& self, const std::vector<Array<int64_t>>& columns) {
            return known_rows(self.index, columns);
          },
          py::arg("columns"))
      .def("__len__", [](const RowIndex& self) { return self.index.size(); })
      .def("clear", [](RowIndex& self) { self.index.clear(); });
  py::class_<TextIndex>(module, "TextIndex")
      .def(py::init<>())
      .def(
          "codes",
          [](TextIndex& self, const RequestHandle& handle, const std::string& name) {
            const TextColumn& column = text_of(handle.batch, name);
            return codes_of(self.index, handle.batch.n,
                            [&](size_t row, std::string_view& key) { return column.get(row, key); });
          },
          py::arg("batch"), py::arg("name"))
      .def(
          "header_codes",
          [](TextIndex& self, const RequestHandle& handle, const std::string& name) {
            return header_codes(self.index, handle, name);
          },
          py::arg("batch"), py::arg("name"))
      .def(
          "value",
          [](const TextIndex& self, int32_t code) {
            if (code < 0 || code >= self.index.size()) throw py::index_error();
            const std::string_view text = self.index.key(code);
            return py::bytes(text.data(), text.size());
          },
          py::arg("code"))
      .def("__len__", [](const TextIndex& self) { return self.index.size(); })
      .def("clear", [](TextIndex& self) { self.index.clear(); });
  py::class_<HostIndex>(module, "HostIndex")
      .def(py::init([](const std::vector<std::string>& names) {
             auto made = std::make_unique<HostIndex>();
             for (const std::string& name : names) made->names.code(name);
             return made;
           }),
           py::arg("names"))
      .def("codes", &host_codes, py::arg("batch"), py::arg("exact"))
      .def("__len__", [](const HostIndex& self) { return self.others.size(); })
      .def("clear", [](HostIndex& self) { self.others.clear(); });
}
