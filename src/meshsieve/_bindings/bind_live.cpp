// Lists that change: LiveTable, and Python rules read straight into a C++ rule set.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "classifier_handle.h"
#include "l4/live_table.h"
#include "meshsieve/errors.h"

namespace py = pybind11;
using namespace meshsieve;

namespace {

// Reads meshsieve.model.Rule objects. The general way is model.RuleSet; this one spares its arrays where rules are few.
class RuleReader {
 public:
  RuleReader() : rules_(std::make_shared<RuleSet>()) {
    rules_->sets.emplace_back();
    rules_->alternative_begin.push_back(0);
  }

  void add(py::handle rule) {
    rules_->common.push_back(match_of(attribute(rule, match_)));
    const py::object alternatives = attribute(rule, alternatives_);
    if (py::len(alternatives) != 0)
      for (const py::handle alternative : alternatives) rules_->alternatives.push_back(match_of(alternative));
    rules_->alternative_begin.push_back(static_cast<uint32_t>(rules_->alternatives.size()));
    rules_->action.push_back(static_cast<Action>(attribute(rule, action_).cast<uint8_t>()));
    rules_->skip_to.push_back(attribute(rule, skip_to_).cast<int32_t>());
    rules_->certain.push_back(py::len(attribute(rule, unknown_)) == 0);
  }

  std::shared_ptr<const RuleSet> finish() {
    if (std::find(rules_->action.begin(), rules_->action.end(), Action::Skip) == rules_->action.end())
      rules_->validate();  // where a skip goes can be judged in the whole list only
    return std::move(rules_);
  }

 private:
  static py::object attribute(py::handle object, const py::str& name) {
    return py::reinterpret_steal<py::object>(checked(PyObject_GetAttr(object.ptr(), name.ptr())));
  }
  static PyObject* checked(PyObject* object) {
    if (object == nullptr) throw py::error_already_set();
    return object;
  }

  Match match_of(py::handle mapping) {
    Match match{};
    const py::dict fields = py::isinstance<py::dict>(mapping) ? py::reinterpret_borrow<py::dict>(mapping)
                                                              : py::dict(py::reinterpret_borrow<py::object>(mapping));
    for (const auto& [name, values] : fields) match[field_named(name)] = set_of(values);
    return match;
  }

  size_t field_named(py::handle name) const {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_Check(name.ptr()) ? PyUnicode_AsUTF8AndSize(name.ptr(), &size) : nullptr;
    if (text == nullptr) throw py::type_error("a field name is text");
    const std::string_view wanted(text, static_cast<size_t>(size));
    for (size_t f = 0; f < kFields.size(); ++f)
      if (wanted == kFields[f].name) return f;
    std::string known;
    for (const FieldInfo& field : kFields) known += std::string(known.empty() ? "" : ", ") + field.name;
    throw ModelError("rule " + std::to_string(rules_->action.size()) + " of those inserted: no field is called '" +
                     std::string(wanted) + "'; fields: " + known);
  }

  SetId set_of(py::handle values) {
    const auto [known, is_new] = ids_.try_emplace(values.ptr(), static_cast<SetId>(rules_->sets.size()));
    if (!is_new) return known->second;
    ValueSet set{span_of(attribute(values, v4_)), span_of(attribute(values, v6_))};
    rules_->sets.push_back(std::move(set));
    return known->second;
  }

  static std::vector<Interval> span_of(const py::object& pairs) {
    std::vector<Interval> span;
    span.reserve(py::len(pairs));
    for (const py::handle pair : pairs) {
      const auto ends = py::reinterpret_borrow<py::tuple>(pair);
      span.push_back({number_of(ends[0]), number_of(ends[1])});
    }
    return span;
  }

  static U128 number_of(py::handle number) {
    int overflow = 0;
    const long long small = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
    if (small == -1 && PyErr_Occurred()) throw py::error_already_set();
    if (overflow < 0 || small < 0) {
      if (overflow <= 0) throw ModelError("a set holds a negative number");
    } else if (overflow == 0) {
      return {0, static_cast<uint64_t>(small)};
    }
    const auto value = py::reinterpret_borrow<py::object>(number);
    if (!(value >> py::int_(128)).equal(py::int_(0))) throw ModelError("a set holds a number beyond 128 bits");
    const auto word = [](const py::object& o) { return PyLong_AsUnsignedLongLongMask(o.ptr()); };
    return {word(value >> py::int_(64)), word(value)};
  }

  // Interned, as the interpreter's cache of attributes wants them.
  static py::str named(const char* name) {
    return py::reinterpret_steal<py::str>(checked(PyUnicode_InternFromString(name)));
  }
  const py::str match_ = named("match"), alternatives_ = named("alternatives"), action_ = named("action");
  const py::str skip_to_ = named("skip_to"), unknown_ = named("unknown"), v4_ = named("v4"), v6_ = named("v6");
  std::shared_ptr<RuleSet> rules_;
  std::unordered_map<PyObject*, SetId> ids_;
};

using Positions = py::array_t<int64_t, py::array::c_style>;

int32_t position_of(int64_t wide) { return static_cast<int32_t>(std::clamp<int64_t>(wide, -1, INT32_MAX)); }

std::vector<int32_t> positions_of(const Positions& wide) {
  std::vector<int32_t> positions(static_cast<size_t>(wide.size()));
  std::transform(wide.data(), wide.data() + wide.size(), positions.begin(), position_of);
  return positions;
}

// Rules and where they go, in the order in which they will stand.
live::Update update_of(const Positions& remove, const Positions& at, const py::object& rules) {
  live::Update update{positions_of(remove), positions_of(at), nullptr};
  if (static_cast<size_t>(at.size()) != py::len(rules)) throw ModelError("a position for every rule that is inserted");
  if (at.size() == 0) return update;
  if (py::isinstance<RuleSet>(rules)) {
    update.rules = rules.cast<std::shared_ptr<RuleSet>>();
    return update;
  }
  RuleReader reader;
  for (const py::handle rule : rules) reader.add(rule);
  update.rules = reader.finish();
  return update;
}

void stop_on_signal() {
  const py::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

py::array_t<int32_t> slots_of(const live::Version& version) {
  const std::vector<uint32_t> slots = version.slots();
  py::array_t<int32_t> out(static_cast<py::ssize_t>(slots.size()));
  std::transform(slots.begin(), slots.end(), out.mutable_data(), live::slot_number);
  return out;
}

}  // namespace

void bind_live(py::module_& module) {
  py::class_<live::Published>(module, "LiveVersion", "One published state of a LiveTable.")
      .def_property_readonly("stats", [](const live::Published& p) { return p.classifier->stats(); })
      .def_property_readonly("capsule", [](const live::Published& p) { return classifier_capsule(p.classifier); })
      .def("__len__", [](const live::Published& p) { return p.version->slots().size(); })
      .def_property_readonly("slots", [](const live::Published& p) { return slots_of(*p.version); })
      .def("rule_set", [](const live::Published& p) {
        const py::gil_scoped_release release;
        return std::const_pointer_cast<RuleSet>(p.version->rule_set());
      });

  py::class_<live::LiveTable>(module, "LiveTable", "A list that changes; see csrc/src/l4/live_table.h.")
      .def(py::init([](std::shared_ptr<RuleSet> rules, const std::string& backend, size_t budget_bytes,
                       const CompileStats& stats) {
             const CompileOptions options{"forest", backend, budget_bytes};
             const py::gil_scoped_release release;
             return std::make_unique<live::LiveTable>(std::move(rules), options, stats);
           }),
           py::arg("rules"), py::arg("backend"), py::arg("budget_bytes"), py::arg("stats"))
      .def_property_readonly("published", &live::LiveTable::published)
      .def_property_readonly("broken", &live::LiveTable::broken)
      .def_property_readonly("worn", &live::LiveTable::worn)
      .def_property_readonly("crowded", &live::LiveTable::crowded)
      .def("renumber", &live::LiveTable::renumber, py::call_guard<py::gil_scoped_release>())
      .def(
          "apply",
          [](live::LiveTable& table, const Positions& remove, const Positions& at, const py::object& rules) {
            const live::Update update = update_of(remove, at, rules);
            const py::gil_scoped_release release;
            return table.apply(update, stop_on_signal);
          },
          py::arg("remove"), py::arg("at"), py::arg("rules"));
}
