// Compiling rule sets. Look-ups are in _fast.pyx, which receives the table through a capsule.
#include <pybind11/stl.h>

#include "bindings.h"
#include "meshsieve/classifier.h"

namespace py = pybind11;
using namespace meshsieve;

namespace {

// The layout version is part of the capsule's name, so that a _fast built against another core refuses it.
constexpr const char* kCapsuleName = "meshsieve.Classifier/1";

py::capsule capsule_of(const std::shared_ptr<const Classifier>& classifier) {
  return py::capsule(new std::shared_ptr<const Classifier>(classifier), kCapsuleName, [](PyObject* capsule) {
    delete static_cast<std::shared_ptr<const Classifier>*>(PyCapsule_GetPointer(capsule, kCapsuleName));
  });
}

}  // namespace

void bind_classifier(py::module_& module) {
  py::class_<CompileStats>(module, "CompileStats")
      .def_readonly("engine", &CompileStats::engine)
      .def_readonly("backend", &CompileStats::backend)
      .def_readonly("rules", &CompileStats::rules)
      .def_readonly("segments", &CompileStats::segments)
      .def_readonly("bytes", &CompileStats::bytes)
      .def_readonly("build_seconds", &CompileStats::build_seconds)
      .def_readonly("worst_case_steps", &CompileStats::worst_case_steps);

  py::class_<Classifier, std::shared_ptr<Classifier>>(module, "Classifier")
      .def_property_readonly("stats", &Classifier::stats)
      .def_property_readonly("capsule", [](const std::shared_ptr<Classifier>& c) { return capsule_of(c); });

  module.def(
      "compile",
      [](std::shared_ptr<RuleSet> rules, const std::string& engine, const std::string& backend, size_t budget_bytes) {
        const CompileOptions options{engine, backend, budget_bytes};
        py::gil_scoped_release release;
        return std::const_pointer_cast<Classifier>(Classifier::compile(std::move(rules), options));
      },
      py::arg("rules"), py::arg("engine") = "auto", py::arg("backend") = "auto", py::arg("budget_bytes") = 0);

  module.def("engines", [] {
    std::vector<std::pair<std::string, std::string>> out;
    for (const EngineInfo& engine : engines()) out.emplace_back(engine.name, engine.summary);
    return out;
  });
}
