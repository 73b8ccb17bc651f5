// FIELDS and RuleSet: how Python columns become the C++ rule model.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>

#include "bindings.h"
#include "meshsieve/errors.h"
#include "meshsieve/rule_set.h"

namespace py = pybind11;
using namespace meshsieve;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

const char* kind_name(FieldKind kind) {
  switch (kind) {
    case FieldKind::address: return "address";
    case FieldKind::number: return "number";
    case FieldKind::name: return "name";
  }
  return "";
}

const char* requires_name(Requires requires_) {
  switch (requires_) {
    case Requires::nothing: return "nothing";
    case Requires::ip: return "ip";
    case Requires::ports: return "ports";
    case Requires::tcp: return "tcp";
    case Requires::icmp: return "icmp";
    case Requires::vlan_tag: return "vlan_tag";
  }
  return "";
}

std::vector<Match> matches_from(const Array<int32_t>& rows) {
  if (rows.ndim() != 2 || rows.shape(1) != kFieldCount) throw ModelError("set ids must have shape (n, len(FIELDS))");
  std::vector<Match> matches(rows.shape(0));
  std::memcpy(matches.data(), rows.data(), matches.size() * sizeof(Match));
  return matches;
}

template <class To, class From>
std::vector<To> vector_from(const Array<From>& values) {
  std::vector<To> out(values.size());
  for (py::ssize_t i = 0; i < values.size(); ++i) out[i] = static_cast<To>(values.data()[i]);
  return out;
}

std::shared_ptr<RuleSet> make_rule_set(const Array<uint64_t>& offsets, const Array<uint64_t>& intervals,
                                       const Array<int32_t>& common, const Array<uint32_t>& alternative_begin,
                                       const Array<int32_t>& alternatives, const Array<uint8_t>& action,
                                       const Array<int32_t>& skip_to, const Array<uint8_t>& certain) {
  if (offsets.size() < 3 || offsets.size() % 2 != 1) throw ModelError("offsets must hold two spans a set");
  const auto count = static_cast<uint64_t>(intervals.ndim() == 2 && intervals.shape(1) == 4 ? intervals.shape(0) : 0);
  auto rules = std::make_shared<RuleSet>();
  rules->sets.resize(offsets.size() / 2);
  const uint64_t* words = intervals.data();
  for (size_t s = 0; s < rules->sets.size(); ++s) {
    for (int family = 0; family < 2; ++family) {
      const uint64_t begin = offsets.data()[2 * s + family];
      const uint64_t end = offsets.data()[2 * s + family + 1];
      if (begin > end || end > count) throw ModelError("interval offsets are out of range");
      std::vector<Interval>& span = family == 0 ? rules->sets[s].v4 : rules->sets[s].v6;
      span.reserve(end - begin);
      for (uint64_t i = begin; i < end; ++i) {
        const uint64_t* w = words + 4 * i;
        span.push_back({{w[0], w[1]}, {w[2], w[3]}});
      }
    }
  }
  rules->common = matches_from(common);
  rules->alternative_begin = vector_from<uint32_t>(alternative_begin);
  rules->alternatives = matches_from(alternatives);
  rules->action = vector_from<Action>(action);
  rules->skip_to = vector_from<int32_t>(skip_to);
  rules->certain = vector_from<uint8_t>(certain);
  rules->validate();
  return rules;
}

template <class To, class From>
py::array_t<To> array_from(const std::vector<From>& values) {
  py::array_t<To> out(static_cast<py::ssize_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) out.mutable_data()[i] = static_cast<To>(values[i]);
  return out;
}

py::array_t<int32_t> array_of(const std::vector<Match>& matches) {
  py::array_t<int32_t> out({static_cast<py::ssize_t>(matches.size()), static_cast<py::ssize_t>(kFieldCount)});
  std::memcpy(out.mutable_data(), matches.data(), matches.size() * sizeof(Match));
  return out;
}

// What make_rule_set takes.
py::tuple columns_of(const RuleSet& rules) {
  std::vector<uint64_t> offsets = {0}, words;
  for (const ValueSet& set : rules.sets) {
    for (const std::vector<Interval>* span : {&set.v4, &set.v6}) {
      for (const Interval& i : *span) words.insert(words.end(), {i.lo.hi, i.lo.lo, i.hi.hi, i.hi.lo});
      offsets.push_back(words.size() / 4);
    }
  }
  const py::array_t<uint64_t> intervals = array_from<uint64_t>(words);
  return py::make_tuple(array_from<uint64_t>(offsets), intervals.attr("reshape")(-1, 4), array_of(rules.common),
                        array_from<uint32_t>(rules.alternative_begin), array_of(rules.alternatives),
                        array_from<uint8_t>(rules.action), array_from<int32_t>(rules.skip_to),
                        array_from<uint8_t>(rules.certain));
}

}  // namespace

void bind_model(py::module_& module) {
  py::class_<FieldInfo>(module, "FieldInfo", "One matcher field of fields.def.")
      .def_property_readonly("name", [](const FieldInfo& f) { return f.name; })
      .def_property_readonly("kind", [](const FieldInfo& f) { return kind_name(f.kind); })
      .def_property_readonly("bits", [](const FieldInfo& f) { return f.bits; })
      .def_property_readonly("requires", [](const FieldInfo& f) { return requires_name(f.requires_); })
      .def_property_readonly("doc", [](const FieldInfo& f) { return f.doc; })
      .def("__repr__", [](const FieldInfo& f) { return std::string("<FieldInfo ") + f.name + ">"; });
  module.attr("FIELDS") = py::tuple(py::cast(std::vector<FieldInfo>(kFields.begin(), kFields.end())));

  py::class_<RuleSet, std::shared_ptr<RuleSet>>(module, "RuleSet", "The compiled engines' input; see meshsieve.model.")
      .def(py::init(&make_rule_set), py::arg("offsets"), py::arg("intervals"), py::arg("common"),
           py::arg("alternative_begin"), py::arg("alternatives"), py::arg("action"), py::arg("skip_to"),
           py::arg("certain"))
      .def("columns", &columns_of)
      .def("__len__", &RuleSet::size)
      .def_property_readonly("fields_used", &RuleSet::fields_used);
}
