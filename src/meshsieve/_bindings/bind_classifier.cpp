// Compiling rule sets. Look-ups are in _fast.pyx, which receives the table through a capsule.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "classifier_handle.h"
#include "l4/reference.h"
#include "meshsieve/classifier.h"
#include "meshsieve/errors.h"
#include "simd/backends.h"

namespace py = pybind11;
using namespace meshsieve;

namespace {

constexpr const char* kCapsuleName = "meshsieve.Classifier/1";

// (field, high word, low word) of every field that a packet has.
using FieldWords = std::vector<std::tuple<int, uint64_t, uint64_t>>;

PacketKey key_of(const FieldWords& fields) {
  PacketKey key;
  for (const auto& [field, hi, lo] : fields) {
    if (field < 0 || field >= kFieldCount) throw ModelError("field " + std::to_string(field) + " does not exist");
    key.present |= uint32_t{1} << field;
    if (kFields[field].kind == FieldKind::address) {
      key.address[field] = {hi, lo};
    } else {
      key.value[field] = static_cast<uint32_t>(lo);
    }
  }
  return key;
}

// One row a tested rule: rule, truth (0 no, 1 maybe, 2 yes), failed and unknown field masks.
py::array_t<int64_t> trace(const RuleSet& rules, const FieldWords& fields) {
  const std::vector<RuleTest> tests = reference_trace(rules, key_of(fields));
  py::array_t<int64_t> rows({static_cast<py::ssize_t>(tests.size()), py::ssize_t{4}});
  int64_t* row = rows.mutable_data();
  for (const RuleTest& test : tests) {
    *row++ = test.rule;
    *row++ = static_cast<int64_t>(test.truth);
    *row++ = test.failed;
    *row++ = test.unknown;
  }
  return rows;
}

}  // namespace

py::capsule classifier_capsule(const std::shared_ptr<const Classifier>& classifier) {
  return py::capsule(new std::shared_ptr<const Classifier>(classifier), kCapsuleName, [](PyObject* capsule) {
    delete static_cast<std::shared_ptr<const Classifier>*>(PyCapsule_GetPointer(capsule, kCapsuleName));
  });
}

void bind_classifier(py::module_& module) {
  py::class_<Candidate>(module, "Candidate", "An engine that was built for rules [begin, end), and how it did.")
      .def_readonly("engine", &Candidate::engine)
      .def_readonly("begin", &Candidate::begin)
      .def_readonly("end", &Candidate::end)
      .def_readonly("bytes", &Candidate::bytes)
      .def_readonly("build_seconds", &Candidate::build_seconds)
      .def_readonly("lookup_ns", &Candidate::lookup_ns)
      .def_readonly("taken", &Candidate::taken)
      .def_readonly("declined", &Candidate::declined);

  py::class_<CompileStats>(module, "CompileStats")
      .def_readonly("engine", &CompileStats::engine)
      .def_readonly("backend", &CompileStats::backend)
      .def_readonly("rules", &CompileStats::rules)
      .def_readonly("hidden", &CompileStats::hidden)
      .def_readonly("segments", &CompileStats::segments)
      .def_readonly("bytes", &CompileStats::bytes)
      .def_property_readonly("bytes_per_rule",
                             [](const CompileStats& s) {
                               return s.rules == 0 ? 0.0 : static_cast<double>(s.bytes) / static_cast<double>(s.rules);
                             })
      .def_readonly("build_seconds", &CompileStats::build_seconds)
      .def_readonly("candidates", &CompileStats::candidates)
      .def_readonly("worst_case_steps", &CompileStats::worst_case_steps)
      .def("__repr__", [](const CompileStats& s) {
        return py::str("<CompileStats: engine {}, backend {}, {} rules, {} bytes, at most {} steps>")
            .format(s.engine, s.backend, s.rules, s.bytes, s.worst_case_steps);
      });

  py::class_<Classifier, std::shared_ptr<Classifier>>(module, "Classifier")
      .def_property_readonly("stats", &Classifier::stats)
      .def_property_readonly("capsule", [](const std::shared_ptr<Classifier>& c) { return classifier_capsule(c); });

  module.def(
      "compile",
      [](std::shared_ptr<RuleSet> rules, const std::string& engine, const std::string& backend, size_t budget_bytes) {
        const CompileOptions options{engine, backend, budget_bytes};
        py::gil_scoped_release release;
        return std::const_pointer_cast<Classifier>(Classifier::compile(std::move(rules), options));
      },
      py::arg("rules"), py::arg("engine") = "auto", py::arg("backend") = "auto", py::arg("budget_bytes") = 0);

  module.def("trace", &trace, py::arg("rules"), py::arg("fields"),
             "int64 (n, 4): rule, truth, failed and unknown field masks of every rule that the reference tests.");

  module.def(
      "walk",
      [](const RuleSet& rules, const FieldWords& fields, int32_t start) {
        if (start < 0) throw ModelError("a walk starts at a rule");
        return reference_walk(rules, key_of(fields), start);
      },
      py::arg("rules"), py::arg("fields"), py::arg("start") = 0,
      "The reference's result for one packet, walking from rule `start`.");

  module.def("engines", [] {
    std::vector<std::pair<std::string, std::string>> out;
    for (const EngineInfo& engine : engines()) out.emplace_back(engine.name, engine.summary);
    return out;
  });

  module.def(
      "backends",
      [] {
        std::vector<std::string> out;
        for (const simd::Backend* backend : simd::backends())
          if (backend->supported()) out.emplace_back(backend->name);
        return out;
      },
      "SIMD backends that this CPU runs, best first; the last is \"scalar\".");
  bind_live(module);
}
