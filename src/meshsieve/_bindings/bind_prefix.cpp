// PrefixTable: changes. Look-ups are in _fast.pyx, which shares the table through a capsule.
#include <pybind11/stl.h>

#include <memory>

#include "bindings.h"
#include "meshsieve/prefix_table.h"

namespace py = pybind11;
using namespace meshsieve;

namespace {

constexpr const char* kCapsuleName = "meshsieve.PrefixTable/1";

py::capsule capsule_of(const std::shared_ptr<PrefixTable>& table) {
  return py::capsule(new std::shared_ptr<PrefixTable>(table), kCapsuleName, [](PyObject* capsule) {
    delete static_cast<std::shared_ptr<PrefixTable>*>(PyCapsule_GetPointer(capsule, kCapsuleName));
  });
}

// (IP version, high word, low word, prefix length)
using Key = std::tuple<int, uint64_t, uint64_t, int>;

PrefixTable::Prefix prefix_of(const Key& key) {
  const auto& [version, hi, lo, bits] = key;
  return {version == 6, {hi, lo}, bits};
}

}  // namespace

void bind_prefix(py::module_& module) {
  py::class_<PrefixTable, std::shared_ptr<PrefixTable>>(module, "PrefixTable")
      .def(py::init<const std::string&>(), py::arg("backend") = "auto")
      .def("__len__", &PrefixTable::size)
      .def_property_readonly("bytes", &PrefixTable::bytes)
      .def_property_readonly("capsule", [](const std::shared_ptr<PrefixTable>& table) { return capsule_of(table); })
      .def("exact", [](const PrefixTable& table, const Key& key) { return table.exact(prefix_of(key)); })
      .def("items",
           [](const PrefixTable& table) {
             std::vector<std::pair<Key, int64_t>> out;
             for (const auto& [prefix, value] : table.items())
               out.emplace_back(Key{prefix.is_v6 ? 6 : 4, prefix.address.hi, prefix.address.lo, prefix.bits}, value);
             return out;
           })
      .def(
          "apply",
          [](PrefixTable& table, const std::vector<std::pair<Key, std::optional<int64_t>>>& changes) {
            std::vector<PrefixTable::Change> out;
            for (const auto& [key, value] : changes) out.push_back({prefix_of(key), value});
            const py::gil_scoped_release release;
            return table.apply(out);
          },
          py::arg("changes"));
}
