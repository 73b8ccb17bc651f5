// HttpRequests: HTTP requests out of captured packets.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "http_handle.h"
#include "meshsieve/key_index.h"

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

// Texts end to end with their offsets, as meshsieve.text_columns has them.
class Packed {
 public:
  void add(std::string_view text) {
    data_.append(text);
    ends_.push_back(static_cast<int64_t>(data_.size()));
  }
  py::tuple arrays() const {
    py::array_t<uint8_t> data(static_cast<py::ssize_t>(data_.size()), reinterpret_cast<const uint8_t*>(data_.data()));
    return py::make_tuple(data, py::array_t<int64_t>(static_cast<py::ssize_t>(ends_.size()), ends_.data()));
  }

 private:
  std::string data_;
  std::vector<int64_t> ends_{0};
};

py::tuple texts(const std::vector<HttpRequest>& rows, std::string HttpRequest::*member) {
  Packed out;
  for (const HttpRequest& row : rows) out.add(row.*member);
  return out.arrays();
}

// Header lines: int64 (n + 1) where those of each row begin, the different names as they were sent, the name of each
// line (int32) and the values as texts.
py::tuple header_lines(const std::vector<HttpRequest>& rows) {
  std::vector<int64_t> begin{0};
  std::vector<int32_t> names;
  KeyIndex known;
  Packed values;
  for (const HttpRequest& row : rows) {
    for (const auto& [name, value] : row.headers) {
      names.push_back(known.code(name));
      values.add(value);
    }
    begin.push_back(static_cast<int64_t>(names.size()));
  }
  py::list distinct;
  for (int32_t code = 0; code < known.size(); ++code)
    distinct.append(py::bytes(known.key(code).data(), known.key(code).size()));
  return py::make_tuple(py::array_t<int64_t>(static_cast<py::ssize_t>(begin.size()), begin.data()), distinct,
                        py::array_t<int32_t>(static_cast<py::ssize_t>(names.size()), names.data()), values.arrays());
}

// Columns by name: arrays of numbers, packed texts, and "headers".
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
