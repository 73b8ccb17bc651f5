// CaptureReader and its batches.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <atomic>
#include <mutex>
#include <optional>

#include "bindings.h"
#include "columns.h"
#include "meshsieve/capture.h"
#include "meshsieve/errors.h"

namespace py = pybind11;
using namespace meshsieve;

namespace {

using Names = std::vector<std::pair<std::string, std::string>>;

Names decode_statuses() {
  return {
#define DECODE_STATUS(name, doc) {#name, doc},
#include "meshsieve/decode_status.def"
#undef DECODE_STATUS
  };
}

Names tunnel_kinds() {
  return {
#define TUNNEL_KIND(name, doc) {#name, doc},
#include "meshsieve/tunnel_kind.def"
#undef TUNNEL_KIND
  };
}

void check_signals() {
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// A reader with its spare batches. A batch is used again when no array of Python points into it any more.
class ReaderHandle {
 public:
  ReaderHandle(std::vector<std::string> paths, bool merge, std::string filter, std::optional<uint64_t> count,
               std::optional<int64_t> start_ns, std::optional<int64_t> end_ns) {
    CaptureOptions options;
    options.paths = std::move(paths);
    options.merge = merge;
    options.filter = std::move(filter);
    if (count) options.count = *count;
    if (start_ns) options.start_ns = *start_ns;
    if (end_ns) options.end_ns = *end_ns;
    options.interrupted = [] {
      const py::gil_scoped_acquire acquire;
      check_signals();
    };
    const py::gil_scoped_release release;
    reader_ = std::make_unique<CaptureReader>(std::move(options));
  }

  // The next batch, or nothing at the end. After an exception the batch that was being filled is gone on with.
  std::shared_ptr<PacketBatch> next_batch(uint32_t batch_size) {
    const std::unique_lock lock(busy_, std::try_to_lock);
    if (!lock) throw CaptureError("the reader is being read by another thread");
    if (!batch_ || batch_->capacity() != batch_size) batch_ = take_batch(batch_size);
    for (;;) {
      CaptureReader::Progress progress;
      {
        const py::gil_scoped_release release;
        progress = reader_->fill(*batch_);
      }
      if (progress != CaptureReader::Progress::more) break;
      check_signals();
    }
    if (batch_->size() == 0) return nullptr;
    return std::move(batch_);
  }

  const CaptureReader& reader() const { return *reader_; }

 private:
  std::shared_ptr<PacketBatch> take_batch(uint32_t batch_size) {
    for (const auto& spare : batches_) {
      if (spare.use_count() == 1 && spare->capacity() == batch_size) {
        std::atomic_thread_fence(std::memory_order_acquire);
        spare->clear();
        return spare;
      }
    }
    std::erase_if(batches_, [](const auto& batch) { return batch.use_count() == 1; });
    auto batch = std::make_shared<PacketBatch>(batch_size);
    if (batches_.size() < kSpareBatches) batches_.push_back(batch);
    return batch;
  }

  static constexpr size_t kSpareBatches = 4;
  std::mutex busy_;
  std::unique_ptr<CaptureReader> reader_;
  std::shared_ptr<PacketBatch> batch_;
  std::vector<std::shared_ptr<PacketBatch>> batches_;
};

// (fields, present, extra) as meshsieve.columns.PacketColumns wants them.
py::tuple batch_arrays(const std::shared_ptr<PacketBatch>& batch) {
  const py::capsule base = keep_alive(batch);
  py::dict fields, extra;
  for (const PacketBatch::ColumnInfo& column : batch->columns()) {
    if (column.group == ColumnGroup::flow && !batch->has_flows) continue;
    py::dict& into = column.group == ColumnGroup::field ? fields : extra;
    into[column.name] = column_array(column.type, column.data, batch->size(), base);
  }
  return py::make_tuple(fields, column_array(ColumnType::u32, batch->present, batch->size(), base), extra);
}

}  // namespace

void bind_capture(py::module_& module) {
  module.attr("DECODE_STATUSES") = py::tuple(py::cast(decode_statuses()));
  module.attr("TUNNEL_KINDS") = py::tuple(py::cast(tunnel_kinds()));
  module.attr("MAX_BATCH") = kMaxBatch;
  module.def("link_type_is_known", &link_type_is_known);

  py::class_<PacketBatch, std::shared_ptr<PacketBatch>>(module, "PacketBatch")
      .def("__len__", &PacketBatch::size)
      .def("arrays", &batch_arrays);

  py::class_<CaptureReader::Problem>(module, "CaptureProblem")
      .def_property_readonly("path", [](const CaptureReader::Problem& p) { return py::bytes(p.path); })
      .def_readonly("text", &CaptureReader::Problem::text)
      .def_readonly("packets_read", &CaptureReader::Problem::packets_read)
      .def_readonly("offset", &CaptureReader::Problem::offset);

  py::class_<ReaderHandle>(module, "CaptureReader")
      .def(py::init<std::vector<std::string>, bool, std::string, std::optional<uint64_t>, std::optional<int64_t>,
                    std::optional<int64_t>>(),
           py::arg("paths"), py::arg("merge"), py::arg("filter"), py::arg("count"), py::arg("start_ns"),
           py::arg("end_ns"))
      .def("next_batch", &ReaderHandle::next_batch, py::arg("batch_size"))
      .def_property_readonly("packets_read", [](const ReaderHandle& h) { return h.reader().packets_read(); })
      .def_property_readonly("packets_delivered", [](const ReaderHandle& h) { return h.reader().packets_delivered(); })
      .def_property_readonly("bytes_read", [](const ReaderHandle& h) { return h.reader().file_bytes_read(); })
      .def_property_readonly("size_bytes", [](const ReaderHandle& h) { return h.reader().file_bytes(); })
      .def_property_readonly("status_counts", [](const ReaderHandle& h) { return h.reader().status_counts(); })
      .def_property_readonly("problems", [](const ReaderHandle& h) { return h.reader().problems(); });
}
