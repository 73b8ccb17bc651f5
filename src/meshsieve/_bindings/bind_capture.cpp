// CaptureReader and its batches.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>

#include "bindings.h"
#include "columns.h"
#include "flow_handle.h"
#include "http_handle.h"
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

// A batch of packets that were not decoded here: columns by name, copied. Integer arrays of n rows; addresses as
// uint64 (n, 2).
std::shared_ptr<PacketBatch> batch_of(size_t n, const py::dict& columns, const py::object& present) {
  if (n > kMaxBatch) throw CaptureError("a batch holds at most 65,536 packets");
  auto batch = std::make_shared<PacketBatch>(std::max<uint32_t>(1, static_cast<uint32_t>(n)));
  batch->resize(static_cast<uint32_t>(n));
  batch->mark_sparse_used();
  const auto copy = [n](const py::handle& values, const PacketBatch::ColumnInfo& column) {
    const auto fill = [&]<class T>(T) {
      const auto array = py::array_t<T, py::array::c_style | py::array::forcecast>::ensure(values);
      const size_t width = column.type == ColumnType::address ? 2 : 1;
      if (!array || static_cast<size_t>(array.size()) != n * width) {
        throw ModelError(std::string("column ") + column.name + " does not have one row a packet");
      }
      std::memcpy(column.data, array.data(), n * width * sizeof(T));
    };
    switch (column.type) {
      case ColumnType::u8:
      case ColumnType::boolean: return fill(uint8_t{});
      case ColumnType::u16: return fill(uint16_t{});
      case ColumnType::u32: return fill(uint32_t{});
      case ColumnType::i32: return fill(int32_t{});
      case ColumnType::i64: return fill(int64_t{});
      case ColumnType::u64:
      case ColumnType::address: return fill(uint64_t{});
    }
  };
  for (const PacketBatch::ColumnInfo& column : batch->columns()) {
    if (columns.contains(column.name)) copy(columns[column.name], column);
  }
  copy(present, {"present", ColumnType::u32, ColumnGroup::extra, batch->present});
  return batch;
}

void check_signals() {
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// A reader with its spare batches. A batch is used again when no array of Python points into it any more.
class ReaderHandle {
 public:
  ReaderHandle(std::vector<std::string> paths, std::vector<std::string> names, std::vector<CaptureShard> shards,
               bool merge, std::string filter, std::optional<uint64_t> count, std::optional<int64_t> start_ns,
               std::optional<int64_t> end_ns) {
    CaptureOptions options;
    if (names.size() != paths.size()) throw CaptureError("every path needs a name");
    options.paths = std::move(paths);
    options.names = std::move(names);
    if (!shards.empty() && shards.size() != options.paths.size()) throw CaptureError("every path needs a shard");
    options.shards = std::move(shards);
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
  std::shared_ptr<PacketBatch> next_batch(uint32_t batch_size, FlowHandle* flows, HttpHandle* http, bool keep_bytes) {
    const Held held(*this, flows, http);
    if (!batch_ || batch_->capacity() != batch_size) batch_ = take_batch(batch_size);
    batch_->keeps_bytes = keep_bytes;
    for (;;) {
      CaptureReader::Progress progress;
      {
        const py::gil_scoped_release release;
        progress = reader_->fill(*batch_, flows ? &flows->table : nullptr, held.observers);
      }
      if (progress != CaptureReader::Progress::more) break;
      check_signals();
    }
    if (batch_->size() == 0) return nullptr;
    return std::move(batch_);
  }

  // Some packets through the flow table, without columns; false at the end.
  bool follow(FlowHandle& flows, HttpHandle* http) {
    const Held held(*this, &flows, http);
    const py::gil_scoped_release release;
    return reader_->follow(flows.table, held.observers) == CaptureReader::Progress::more;
  }

  void close() {
    const std::unique_lock lock(busy_, std::try_to_lock);
    if (!lock) throw CaptureError("the reader is being read by another thread");
    reader_->close();
    batch_.reset();
    batches_.clear();
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

  // The reader and what packets go through, for one call.
  struct Held {
    Held(ReaderHandle& reader, FlowHandle* flows, HttpHandle* http)
        : busy(reader.busy_, std::try_to_lock),
          of_flows(flows ? flows->lock() : std::unique_lock<std::mutex>()),
          of_http(http ? http->lock() : std::unique_lock<std::mutex>()) {
      if (!busy) throw CaptureError("the reader is being read by another thread");
      if (http) observers.push_back(&http->requests);
    }
    std::unique_lock<std::mutex> busy, of_flows, of_http;
    std::vector<PacketObserver*> observers;
  };

  static constexpr size_t kSpareBatches = 4;
  std::mutex busy_;
  std::unique_ptr<CaptureReader> reader_;
  std::shared_ptr<PacketBatch> batch_;
  std::vector<std::shared_ptr<PacketBatch>> batches_;
};

// (names of the fields, names of the other columns). `ct_state` is a field too, which only a flow table knows.
py::tuple column_names(const PacketBatch& batch) {
  std::vector<std::string> fields, extra;
  for (const PacketBatch::ColumnInfo& column : batch.columns()) {
    if (column.group == ColumnGroup::flow && !batch.has_flows) continue;
    const bool is_field = column.group == ColumnGroup::field;
    if (is_field || column.data == batch.ct_state) fields.emplace_back(column.name);
    if (!is_field) extra.emplace_back(column.name);
  }
  return py::make_tuple(py::tuple(py::cast(fields)), py::tuple(py::cast(extra)));
}

py::array batch_column(const std::shared_ptr<PacketBatch>& batch, const std::string& name) {
  for (const PacketBatch::ColumnInfo& column : batch->columns()) {
    if (name != column.name) continue;
    if (column.group == ColumnGroup::sparse) batch->spread_sparse();
    return column_array(column.type, column.data, batch->size(), keep_alive(batch));
  }
  throw py::key_error(name);
}

py::array batch_present(const std::shared_ptr<PacketBatch>& batch) {
  return column_array(ColumnType::u32, batch->present, batch->size(), keep_alive(batch));
}

}  // namespace

void bind_capture(py::module_& module) {
  module.attr("DECODE_STATUSES") = py::tuple(py::cast(decode_statuses()));
  module.attr("TUNNEL_KINDS") = py::tuple(py::cast(tunnel_kinds()));
  module.attr("MAX_BATCH") = kMaxBatch;
  module.def("link_type_is_known", &link_type_is_known);

  py::class_<PacketBatch, std::shared_ptr<PacketBatch>>(module, "PacketBatch")
      .def(py::init(&batch_of), py::arg("n"), py::arg("columns"), py::arg("present"))
      .def("__len__", &PacketBatch::size)
      .def_readonly("has_flows", &PacketBatch::has_flows)
      .def("names", &column_names)
      .def("column", &batch_column, py::arg("name"))
      .def("present", &batch_present);

  py::class_<CaptureShard>(module, "CaptureShard")
      .def(py::init([](uint64_t begin, uint64_t end, uint64_t file_size, uint64_t packets_before, int64_t time_ns,
                       const py::bytes& prologue) {
             return CaptureShard{begin, end, file_size, packets_before, time_ns, std::string(prologue)};
           }),
           py::arg("begin"), py::arg("end"), py::arg("file_size"), py::arg("packets_before"), py::arg("time_ns"),
           py::arg("prologue"))
      .def_readonly("begin", &CaptureShard::begin)
      .def_readonly("end", &CaptureShard::end)
      .def_readonly("file_size", &CaptureShard::file_size)
      .def_readonly("packets_before", &CaptureShard::packets_before)
      .def_readonly("time_ns", &CaptureShard::time_ns)
      .def_property_readonly("prologue", [](const CaptureShard& shard) { return py::bytes(shard.prologue); });
  module.def(
      "scan_shards",
      [](const std::string& path, size_t n) {
        const py::gil_scoped_release release;
        return scan_shards(path, n, [] {
          const py::gil_scoped_acquire acquire;
          check_signals();
        });
      },
      py::arg("path"), py::arg("n"));

  py::class_<CaptureReader::Problem>(module, "CaptureProblem")
      .def_readonly("name", &CaptureReader::Problem::name)
      .def_readonly("text", &CaptureReader::Problem::text)
      .def_readonly("packets_read", &CaptureReader::Problem::packets_read)
      .def_readonly("offset", &CaptureReader::Problem::offset);

  py::class_<ReaderHandle>(module, "CaptureReader")
      .def(py::init<std::vector<std::string>, std::vector<std::string>, std::vector<CaptureShard>, bool, std::string, std::optional<uint64_t>,
                    std::optional<int64_t>, std::optional<int64_t>>(),
           py::arg("paths"), py::arg("names"), py::arg("shards"), py::arg("merge"), py::arg("filter"), py::arg("count"), py::arg("start_ns"),
           py::arg("end_ns"))
      .def("next_batch", &ReaderHandle::next_batch, py::arg("batch_size"), py::arg("flows"), py::arg("http"),
           py::arg("keep_bytes"))
      .def("follow", &ReaderHandle::follow, py::arg("flows"), py::arg("http"))
      .def("close", &ReaderHandle::close)
      .def_property_readonly("packets_read", [](const ReaderHandle& h) { return h.reader().packets_read(); })
      .def_property_readonly("packets_delivered", [](const ReaderHandle& h) { return h.reader().packets_delivered(); })
      .def_property_readonly("bytes_read", [](const ReaderHandle& h) { return h.reader().file_bytes_read(); })
      .def_property_readonly("size_bytes", [](const ReaderHandle& h) { return h.reader().file_bytes(); })
      .def_property_readonly("status_counts", [](const ReaderHandle& h) { return h.reader().status_counts(); })
      .def_property_readonly("problems", [](const ReaderHandle& h) { return h.reader().problems(); });
}
