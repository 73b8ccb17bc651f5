// Result rows as text, and addresses as text for Arrow.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "meshsieve/errors.h"
#include "meshsieve/row_format.h"

namespace py = pybind11;
using namespace meshsieve;

namespace {

CellKind kind_named(const std::string& name) {
  if (name == "number") return CellKind::number;
  if (name == "address") return CellKind::address;
  if (name == "text") return CellKind::text;
  throw ModelError("no kind of column is called '" + name + "'");
}

// A contiguous array of n rows, checked; nullptr for None.
const uint8_t* flags_of(const py::object& object, size_t n) {
  if (object.is_none()) return nullptr;
  const auto array = py::cast<py::array>(object);
  if (array.itemsize() != 1 || array.ndim() != 1 || array.shape(0) != static_cast<py::ssize_t>(n) ||
      (n > 1 && array.strides(0) != 1))
    throw ModelError("a column of flags must hold one contiguous byte a row");
  return static_cast<const uint8_t*>(array.data());
}

const void* data_of(const py::array& array, CellKind kind, size_t n) {
  const bool wide = kind == CellKind::address;
  const char type = array.dtype().kind();
  const bool right_type = wide ? type == 'u' && array.itemsize() == 8
                          : kind == CellKind::text ? type == 'i' && array.itemsize() == 4
                                                   : type == 'u' || type == 'i' || type == 'b';
  const bool right_shape = array.ndim() == (wide ? 2 : 1) && array.shape(0) == static_cast<py::ssize_t>(n) &&
                           (!wide || array.shape(1) == 2);
  const bool contiguous = (array.flags() & py::array::c_style) != 0;
  if (!right_type || !right_shape || !contiguous) throw ModelError("a column has the wrong type or shape");
  return array.data();
}

// columns: (data, valid or None, version or None) each; numpy arrays that the caller keeps alive.
py::bytes format_rows(const RowFormatter& formatter, const std::vector<std::string>& kinds, size_t n,
                      const std::vector<std::tuple<py::array, py::object, py::object>>& columns) {
  std::vector<CellColumn> cells;
  for (size_t c = 0; c < columns.size(); ++c) {
    const auto& [data, valid, version] = columns[c];
    const CellKind kind = kind_named(kinds.at(c));
    CellColumn cell{data_of(data, kind, n), static_cast<uint32_t>(data.itemsize()), data.dtype().kind() == 'i',
                    flags_of(valid, n), flags_of(version, n)};
    if (kind == CellKind::address && cell.version == nullptr) throw ModelError("an address column needs its version");
    cells.push_back(cell);
  }
  std::string out;
  {
    py::gil_scoped_release release;
    formatter.append(cells, n, out);
  }
  return py::bytes(out);
}

std::pair<py::bytes, py::array_t<int32_t>> format_addresses(const py::array& data, const py::object& version,
                                                            const py::object& valid) {
  const auto n = static_cast<size_t>(data.shape(0));
  const void* words = data_of(data, CellKind::address, n);
  const uint8_t* versions = flags_of(version, n);
  const uint8_t* valids = flags_of(valid, n);
  if (versions == nullptr) throw ModelError("an address column needs its version");
  if (n > static_cast<size_t>(INT32_MAX) / kMaxAddressText) throw ModelError("too many addresses for one batch");
  py::array_t<int32_t> offsets(static_cast<py::ssize_t>(n + 1));
  int32_t* offset = offsets.mutable_data();
  std::string out(n * kMaxAddressText, '\0');
  size_t length = 0;
  offset[0] = 0;
  for (size_t i = 0; i < n; ++i) {
    if (valids == nullptr || valids[i] != 0) {
      U128 address;
      std::memcpy(&address, static_cast<const uint8_t*>(words) + 16 * i, 16);
      length += format_address(address, versions[i], out.data() + length);
    }
    offset[i + 1] = static_cast<int32_t>(length);
  }
  out.resize(length);
  return {py::bytes(out), offsets};
}

class Rows {
 public:
  Rows(const std::vector<std::tuple<std::string, std::string, bool>>& cells, std::string row_begin, std::string row_end,
       std::string null_text)
      : formatter_(layout(cells), std::move(row_begin), std::move(row_end), std::move(null_text)) {
    for (const auto& [kind, prefix, quoted] : cells) kinds_.push_back(kind);
  }
  py::bytes format(size_t n, const std::vector<std::tuple<py::array, py::object, py::object>>& columns) const {
    if (columns.size() != kinds_.size()) throw ModelError("the columns do not fit the layout of the rows");
    return format_rows(formatter_, kinds_, n, columns);
  }
  void clear_texts(size_t column) { formatter_.clear_texts(column); }
  void share_texts(size_t column, size_t owner) { formatter_.share_texts(column, owner); }
  void add_texts(size_t column, const std::vector<std::string>& pieces) { formatter_.add_texts(column, pieces); }

 private:
  static std::vector<CellLayout> layout(const std::vector<std::tuple<std::string, std::string, bool>>& cells) {
    std::vector<CellLayout> out;
    for (const auto& [kind, prefix, quoted] : cells) out.push_back({kind_named(kind), prefix, quoted});
    return out;
  }
  std::vector<std::string> kinds_;
  RowFormatter formatter_;
};

}  // namespace

void bind_report(py::module_& module) {
  py::class_<Rows>(module, "RowFormatter", "Rows of typed columns as NDJSON or CSV; csrc/include/meshsieve/row_format.h.")
      .def(py::init<const std::vector<std::tuple<std::string, std::string, bool>>&, std::string, std::string,
                    std::string>(),
           py::arg("cells"), py::arg("row_begin"), py::arg("row_end"), py::arg("null_text"))
      .def("add_texts", &Rows::add_texts, py::arg("column"), py::arg("pieces"))
      .def("clear_texts", &Rows::clear_texts, py::arg("column"))
      .def("share_texts", &Rows::share_texts, py::arg("column"), py::arg("owner"))
      .def("format", &Rows::format, py::arg("n"), py::arg("columns"));
  module.def("format_addresses", &format_addresses, py::arg("data"), py::arg("version"), py::arg("valid"));
}
