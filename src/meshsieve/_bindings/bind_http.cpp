// HttpRequests: HTTP requests out of captured packets.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "http_handle.h"

namespace py = pybind11;
using namespace meshsieve;

namespace {

py::tuple notes() {
  return py::make_tuple(
#define HTTP_NOTE(name, doc) py::make_tuple(#name, doc),
#include "meshsieve/http_notes.def"
#undef HTTP_NOTE
      py::none())[py::slice(0, kHttpNotes, 1)];
}

py::dict counts(const HttpHandle& handle) {
  const HttpCounts& counts = handle.requests.counts();
  py::dict out;
#define HTTP_COUNT(name, doc) out[#name] = counts.name;
#include "meshsieve/http_counts.def"
#undef HTTP_COUNT
  return out;
}

template <class Member>
py::array numbers(const std::vector<HttpRequest>& rows, Member HttpRequest::*member) {
  py::array_t<Member> out(static_cast<py::ssize_t>(rows.size()));
  Member* at = out.mutable_data();
  for (const HttpRequest& row : rows) *at++ = row.*member;
  return out;
}

py::array addresses(const std::vector<HttpRequest>& rows, U128 HttpRequest::*member) {
  py::array_t<uint64_t> out({static_cast<py::ssize_t>(rows.size()), py::ssize_t{2}});
  uint64_t* at = out.mutable_data();
  for (const HttpRequest& row : rows) {
    *at++ = (row.*member).hi;
    *at++ = (row.*member).lo;
  }
  return out;
}

py::list texts(const std::vector<HttpRequest>& rows, std::string HttpRequest::*member) {
  py::list out(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) out[i] = py::bytes(rows[i].*member);
  return out;
}

py::list header_lines(const std::vector<HttpRequest>& rows) {
  py::list out(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    py::list lines(rows[i].headers.size());
    for (size_t j = 0; j < rows[i].headers.size(); ++j) {
      const auto& [name, value] = rows[i].headers[j];
      lines[j] = py::make_tuple(py::bytes(name), py::bytes(value));
    }
    out[i] = std::move(lines);
  }
  return out;
}

// Columns by name: arrays of numbers, lists of bytes, and "headers".
py::dict take(HttpHandle& handle) {
  std::vector<HttpRequest> rows;
  {
    const std::unique_lock lock = handle.lock();
    rows = handle.requests.take();
  }
  py::dict out;
  out["flow_id"] = numbers(rows, &HttpRequest::flow_id);
  out["src_ip"] = addresses(rows, &HttpRequest::src_ip);
  out["dst_ip"] = addresses(rows, &HttpRequest::dst_ip);
  out["sport"] = numbers(rows, &HttpRequest::sport);
  out["dport"] = numbers(rows, &HttpRequest::dport);
  out["ip_ver"] = numbers(rows, &HttpRequest::ip_ver);
  out["version"] = numbers(rows, &HttpRequest::version);
  out["stream"] = numbers(rows, &HttpRequest::stream);
  out["time_ns"] = numbers(rows, &HttpRequest::time_ns);
  out["request_end_ns"] = numbers(rows, &HttpRequest::request_end_ns);
  out["response_ns"] = numbers(rows, &HttpRequest::response_ns);
  out["response_end_ns"] = numbers(rows, &HttpRequest::response_end_ns);
  out["request_body_bytes"] = numbers(rows, &HttpRequest::request_body_bytes);
  out["response_body_bytes"] = numbers(rows, &HttpRequest::response_body_bytes);
  out["status"] = numbers(rows, &HttpRequest::status);
  out["grpc_status"] = numbers(rows, &HttpRequest::grpc_status);
  out["notes"] = numbers(rows, &HttpRequest::notes);
  out["method"] = texts(rows, &HttpRequest::method);
  out["scheme"] = texts(rows, &HttpRequest::scheme);
  out["authority"] = texts(rows, &HttpRequest::authority);
  out["path"] = texts(rows, &HttpRequest::path);
  out["upgrade"] = texts(rows, &HttpRequest::upgrade);
  out["headers"] = header_lines(rows);
  return out;
}

std::shared_ptr<HttpHandle> make(uint32_t head_bytes, uint32_t header_lines, uint32_t pending, uint64_t memory_bytes) {
  return std::make_shared<HttpHandle>(HttpLimits{head_bytes, header_lines, pending, memory_bytes});
}

}  // namespace

void bind_http(py::module_& module) {
  module.attr("HTTP_NOTES") = notes();
  module.attr("NO_TIME") = kNoTime;

  py::class_<HttpHandle, std::shared_ptr<HttpHandle>>(module, "HttpRequests")
      .def(py::init(&make), py::arg("head_bytes"), py::arg("header_lines"), py::arg("pending"),
           py::arg("memory_bytes"))
      .def("finish",
           [](HttpHandle& handle) {
             const std::unique_lock lock = handle.lock();
             const py::gil_scoped_release release;
             handle.requests.finish();
           })
      .def("take", &take)
      .def_property_readonly("ready", [](const HttpHandle& handle) { return handle.requests.ready(); })
      .def_property_readonly("bytes", [](const HttpHandle& handle) { return handle.requests.bytes(); })
      .def_property_readonly("counts", &counts);
}
