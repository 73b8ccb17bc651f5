// Regex: RE2 over bytes, for the routing and authorization references and for compiling their tables.
#include <pybind11/stl.h>

#include "bindings.h"
#include "meshsieve/regex.h"

namespace py = pybind11;
using meshsieve::Regex;

void bind_regex(py::module_& module) {
  py::class_<Regex, std::shared_ptr<Regex>>(module, "Regex",
                                            "A regular expression with RE2's semantics over bytes; see csrc regex.h.")
      .def(py::init([](const py::bytes& pattern) { return Regex(std::string(pattern)); }), py::arg("pattern"))
      .def("full_match", [](const Regex& re, const py::bytes& text) { return re.full_match(std::string_view(text)); })
      .def("groups",
           [](const Regex& re, const py::bytes& text) {
             py::list out;
             for (const std::string& group : re.groups(std::string_view(text))) out.append(py::bytes(group));
             return out;
           })
      .def("replace_all",
           [](const Regex& re, const py::bytes& text, const py::bytes& substitution) {
             return py::bytes(re.replace_all(std::string(text), std::string(substitution)));
           })
      .def("check_substitution",
           [](const Regex& re, const py::bytes& substitution) { re.check_substitution(std::string(substitution)); })
      .def_property_readonly("pattern", [](const Regex& re) { return py::bytes(re.pattern()); })
      .def("__repr__", [](const Regex& re) { return "<Regex " + re.pattern() + ">"; });
}
