// Saved tables: images of files, and what is read from and written to them.
#include <pybind11/stl.h>

#include <cerrno>
#include <system_error>

#include "bindings.h"
#include "meshsieve/classifier.h"
#include "meshsieve/errors.h"
#include "meshsieve/prefix_table.h"
#include "saved/archive.h"

namespace py = pybind11;
using namespace meshsieve;
using saved::Image;
using saved::Kind;

namespace {

using Attachments = std::vector<std::string>;  // bytes that belong to the caller, kept beside the table

std::shared_ptr<const Image> open(const std::string& path, bool mapped) {
  try {
    const py::gil_scoped_release release;
    return Image::open(path, mapped);
  } catch (const std::system_error& error) {
    const py::gil_scoped_acquire acquire;
    errno = error.code().value();
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
    throw py::error_already_set();
  }
}

std::string_view view_of(const py::bytes& bytes) {
  char* data = nullptr;
  py::ssize_t size = 0;
  if (PyBytes_AsStringAndSize(bytes.ptr(), &data, &size) != 0) throw py::error_already_set();
  return {data, static_cast<size_t>(size)};
}

std::span<const uint8_t> span_of(const py::bytes& bytes) {
  const std::string_view view = view_of(bytes);
  return {reinterpret_cast<const uint8_t*>(view.data()), view.size()};
}

py::bytes bytes_of(const saved::Writer& writer, Kind kind, bool is_signed) {
  auto bytes = py::reinterpret_steal<py::bytes>(
      PyBytes_FromStringAndSize(nullptr, static_cast<py::ssize_t>(writer.size())));
  if (!bytes) throw py::error_already_set();
  auto* data = reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(bytes.ptr()));
  const py::gil_scoped_release release;
  writer.write(data, kind, is_signed ? uint32_t{saved::kSigned} : 0);
  return bytes;
}

void expect(const Image& image, Kind kind, const char* what) {
  if (image.header().kind != static_cast<uint32_t>(kind)) throw TableError(std::string("holds no ") + what);
}

}  // namespace

void bind_saved(py::module_& module) {
  py::class_<Image, std::shared_ptr<Image>>(module, "Image", py::buffer_protocol())
      .def_static("open", [](const std::string& path, bool mapped) {
        return std::const_pointer_cast<Image>(open(path, mapped));
      }, py::arg("path"), py::arg("mapped") = false)
      .def_static("of", [](const py::bytes& bytes) { return std::const_pointer_cast<Image>(Image::of(span_of(bytes))); })
      .def_property_readonly("signed", [](const Image& image) { return (image.header().flags & saved::kSigned) != 0; })
      .def_buffer([](Image& image) {
        const std::span<const uint8_t> bytes = image.bytes();
        return py::buffer_info(const_cast<uint8_t*>(bytes.data()), 1, py::format_descriptor<uint8_t>::format(), 1,
                               {static_cast<py::ssize_t>(bytes.size())}, {py::ssize_t{1}}, true);
      });

  module.def("save_classifier", [](const Classifier& classifier, const Attachments& attachments, bool is_signed) {
    saved::Writer writer;
    classifier.save(writer);
    writer("attachments", attachments);
    return bytes_of(writer, Kind::classifier, is_signed);
  }, py::arg("classifier"), py::arg("attachments"), py::arg("signed") = false);

  module.def("load_classifier", [](std::shared_ptr<Image> image, const std::string& backend) {
    expect(*image, Kind::classifier, "rules");
    std::shared_ptr<const Classifier> classifier;
    Attachments attachments;
    {
      const py::gil_scoped_release release;
      saved::Reader reader(std::move(image));
      classifier = Classifier::load(reader, backend);
      reader("attachments", attachments);
      reader.finish();
    }
    py::list bytes;
    for (const std::string& attachment : attachments) bytes.append(py::bytes(attachment));
    const std::shared_ptr<const RuleSet> rules(classifier, &classifier->rules());
    return py::make_tuple(std::const_pointer_cast<Classifier>(classifier), std::const_pointer_cast<RuleSet>(rules), bytes);
  }, py::arg("image"), py::arg("backend") = "auto");

  module.def("save_prefixes", [](const PrefixTable& table, bool is_signed) {
    saved::Writer writer;
    table.save(writer);
    return bytes_of(writer, Kind::prefixes, is_signed);
  }, py::arg("table"), py::arg("signed") = false);

  module.def("load_prefixes", [](std::shared_ptr<Image> image, const std::string& backend) {
    expect(*image, Kind::prefixes, "prefixes");
    const py::gil_scoped_release release;
    saved::Reader reader(std::move(image));
    std::shared_ptr<PrefixTable> table = PrefixTable::load(reader, backend);
    reader.finish();
    return table;
  }, py::arg("image"), py::arg("backend") = "auto");

  module.def("seal", [](const py::bytes& image) {
    if (view_of(image).size() < sizeof(saved::Header)) throw TableError("is no saved table");
    std::string sealed(view_of(image));
    saved::seal(reinterpret_cast<uint8_t*>(sealed.data()), sealed.size());
    return py::bytes(sealed);
  }, py::arg("image"));
}
