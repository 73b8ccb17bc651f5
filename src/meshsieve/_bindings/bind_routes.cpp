// RouteTableBuilder and what it builds; meshsieve.routes.compiled walks the configuration. Look-ups are in
// _fast_routes.pyx.
#include <pybind11/stl.h>

#include <memory>

#include "bindings.h"
#include "meshsieve/errors.h"
#include "meshsieve/route_table.h"

namespace py = pybind11;
using namespace meshsieve;

namespace {

constexpr const char* kCapsuleName = "meshsieve.RouteTable/1";

using OnMatch = RouteTableBuilder::OnMatch;
using MaybeRegex = std::shared_ptr<Regex>;

std::vector<std::string> strings(const std::vector<py::bytes>& values) { return {values.begin(), values.end()}; }

// ("group" or "tree", number, keep)
OnMatch on_match_of(const std::tuple<std::string, uint32_t, bool>& value) {
  return {std::get<0>(value) == "tree", std::get<1>(value), std::get<2>(value)};
}

using PyOnMatch = std::tuple<std::string, uint32_t, bool>;

std::optional<OnMatch> maybe_on_match(const std::optional<PyOnMatch>& value) {
  if (!value) return std::nullopt;
  return on_match_of(*value);
}

py::dict stats_of(const RouteTable& table) {
  const RouteTableStats s = table.stats();
  py::dict out;
  out["hosts"] = s.hosts, out["routes"] = s.routes, out["nodes"] = s.nodes, out["predicates"] = s.predicates;
  out["regexes"] = s.regexes, out["regex_sets"] = s.regex_sets, out["fans"] = s.fans;
  out["longest_list"] = s.longest_list, out["bytes"] = s.bytes;
  return out;
}

}  // namespace

void bind_routes(py::module_& module) {
  py::enum_<PathKind>(module, "PathKind")
      .value("path", PathKind::exact)
      .value("prefix", PathKind::prefix)
      .value("path_separated_prefix", PathKind::separated_prefix)
      .value("regex", PathKind::regex)
      .value("template", PathKind::uri_template)
      .value("connect", PathKind::connect);
  py::enum_<RequireTls>(module, "RequireTls")
      .value("NONE", RequireTls::none)
      .value("EXTERNAL_ONLY", RequireTls::external_only)
      .value("ALL", RequireTls::all);
  py::enum_<TextMatch>(module, "TextMatch")
      .value("exact", TextMatch::exact)
      .value("prefix", TextMatch::prefix)
      .value("suffix", TextMatch::suffix)
      .value("contains", TextMatch::contains)
      .value("regex", TextMatch::regex);
  py::enum_<TreeKind>(module, "TreeKind").value("exact", TreeKind::exact).value("prefix", TreeKind::prefix);
  py::enum_<JoinKind>(module, "JoinKind")
      .value("and_", JoinKind::all)
      .value("or_", JoinKind::any)
      .value("not_", JoinKind::negation);

  py::class_<RouteTable, std::shared_ptr<RouteTable>>(module, "RouteTable")
      .def_property_readonly("stats", &stats_of)
      .def_property_readonly("header_names",
                             [](const RouteTable& table) {
                               py::list out;
                               for (const std::string& name : table.names().names()) out.append(py::bytes(name));
                               return out;
                             })
      .def_property_readonly("capsule", [](const std::shared_ptr<RouteTable>& table) {
        return py::capsule(new std::shared_ptr<const RouteTable>(table), kCapsuleName, [](PyObject* capsule) {
          delete static_cast<std::shared_ptr<const RouteTable>*>(PyCapsule_GetPointer(capsule, kCapsuleName));
        });
      });

  using B = RouteTableBuilder;
  py::class_<B>(module, "RouteTableBuilder")
      .def(py::init([](const HttpOptions& options, bool ignore_port, bool ignore_path_parameters,
                       const std::optional<py::bytes>& vhost_header, std::vector<int64_t> default_facts) {
             B::Settings settings{options, ignore_port, ignore_path_parameters, std::nullopt, std::move(default_facts)};
             if (vhost_header) settings.vhost_header = std::string(*vhost_header);
             return std::make_unique<B>(std::move(settings));
           }),
           py::arg("options"), py::arg("ignore_port"), py::arg("ignore_path_parameters"), py::arg("vhost_header"),
           py::arg("default_facts"))
      .def("text",
           [](B& b, TextMatch kind, const py::bytes& value, bool ignore_case, const MaybeRegex& regex) {
             if ((kind == TextMatch::regex) != (regex != nullptr)) throw ModelError("a regex text needs a regex");
             return b.text(kind, value, ignore_case, regex);
           })
      .def("header_text", [](B& b, const py::bytes& name, uint32_t text, bool invert,
                             bool missing_as_empty) { return b.header_text(name, text, invert, missing_as_empty); })
      .def("header_present",
           [](B& b, const py::bytes& name, bool present, bool invert, bool missing_as_empty) {
             return b.header_present(name, present, invert, missing_as_empty);
           })
      .def("header_range",
           [](B& b, const py::bytes& name, int64_t low, int64_t high, bool invert, bool missing_as_empty) {
             return b.header_range(name, low, high, invert, missing_as_empty);
           })
      .def("query_text", [](B& b, const py::bytes& name, uint32_t text) { return b.query_text(name, text); })
      .def("query_present", [](B& b, const py::bytes& name, bool present) { return b.query_present(name, present); })
      .def("cookie_text",
           [](B& b, const py::bytes& name, uint32_t text, bool invert) { return b.cookie_text(name, text, invert); })
      .def("grpc", &B::grpc)
      .def("tls", &B::tls, py::arg("validated"), py::arg("wanted"))
      .def("runtime", &B::runtime, py::arg("fact"), py::arg("numerator"), py::arg("denominator"))
      .def("fact", &B::fact)
      .def("begin_host",
           [](B& b, const std::vector<py::bytes>& domains, RequireTls tls) {
             return b.begin_host(strings(domains), tls);
           })
      .def("begin_group", &B::begin_group)
      .def(
          "add_route",
          [](B& b, PathKind kind, const py::bytes& value, bool case_sensitive, const MaybeRegex& regex,
             std::vector<uint32_t> conditions) {
            return b.add_route(kind, value, case_sensitive, regex, std::move(conditions));
          },
          py::arg("kind"), py::arg("value"), py::arg("case_sensitive"), py::arg("regex"),
          py::arg("conditions"))
      .def("tree_text", [](B& b, const py::bytes& header, uint32_t text) { return b.tree_text(header, text); })
      .def("tree_join", &B::tree_join)
      .def("tree_list",
           [](B& b, const std::vector<std::pair<uint32_t, PyOnMatch>>& entries,
              const std::optional<PyOnMatch>& no_match) {
             std::vector<std::pair<uint32_t, OnMatch>> out;
             for (const auto& [predicate, on_match] : entries) out.emplace_back(predicate, on_match_of(on_match));
             return b.tree_list(std::move(out), maybe_on_match(no_match));
           })
      .def("tree_map",
           [](B& b, TreeKind kind, const py::bytes& header, const std::vector<std::pair<py::bytes, PyOnMatch>>& entries,
              const std::optional<PyOnMatch>& no_match) {
             std::vector<std::pair<std::string, OnMatch>> out;
             for (const auto& [key, on_match] : entries) out.emplace_back(std::string(key), on_match_of(on_match));
             return b.tree_map(kind, header, std::move(out), maybe_on_match(no_match));
           })
      .def("set_host_tree", &B::set_host_tree)
      .def("build", [](B& b) {
        const py::gil_scoped_release release;
        return std::const_pointer_cast<RouteTable>(b.build());
      });
}
