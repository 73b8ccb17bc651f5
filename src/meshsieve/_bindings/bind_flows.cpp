// FlowTable and its records.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <mutex>

#include "bindings.h"
#include "columns.h"
#include "flow_handle.h"
#include "meshsieve/errors.h"

namespace py = pybind11;
using namespace meshsieve;

namespace {

template <class Names>
py::tuple names_of(const Names& names) {
  return py::tuple(py::cast(std::vector<std::string>(names.begin(), names.end())));
}

std::shared_ptr<FlowHandle> make_table(const py::dict& options) {
  FlowOptions out;
  const auto take = [&](const char* name, auto& value) {
    if (options.contains(name)) value = options[name].cast<std::remove_reference_t<decltype(value)>>();
  };
  take("tcp_syn_ns", out.tcp_syn_ns);
  take("tcp_established_ns", out.tcp_established_ns);
  take("tcp_closing_ns", out.tcp_closing_ns);
  take("tcp_closed_ns", out.tcp_closed_ns);
  take("udp_single_ns", out.udp_single_ns);
  take("udp_reply_ns", out.udp_reply_ns);
  take("icmp_ns", out.icmp_ns);
  take("other_ns", out.other_ns);
  take("active_ns", out.active_ns);
  take("fragment_ns", out.fragment_ns);
  take("port_reuse", out.port_reuse);
  take("key_vlan", out.key_vlan);
  take("key_vni", out.key_vni);
  take("max_flows", out.max_flows);
  take("max_fragmented", out.max_fragmented);
  return std::make_shared<FlowHandle>(out);
}

py::dict stats(const FlowHandle& handle) {
  const FlowStats& stats = handle.table.stats();
  py::dict out;
  out["packets"] = stats.packets;
  out["flows"] = stats.flows;
  out["live"] = handle.table.live();
  out["evicted"] = stats.evicted;
  out["packets_without_flow"] = stats.packets_without_flow;
  out["fragments_waiting"] = stats.fragments_waiting;
  out["fragments_unmatched"] = stats.fragments_unmatched;
  out["fragmented_evicted"] = stats.fragmented_evicted;
  out["bytes"] = handle.table.bytes();
  return out;
}

py::tuple flow_arrays(const std::shared_ptr<FlowBatch>& batch) {
  const py::capsule base = keep_alive(batch);
  py::dict fields, extra;
  for (const FlowBatch::ColumnInfo& column : batch->columns()) {
    py::dict& into = column.group == ColumnGroup::field ? fields : extra;
    into[column.name] = column_array(column.type, column.data, batch->size(), base);
  }
  return py::make_tuple(fields, column_array(ColumnType::u32, batch->present.data(), batch->size(), base), extra);
}

}  // namespace

void bind_flows(py::module_& module) {
  module.attr("TCP_STATES") = names_of(kTcpStateNames);
  module.attr("FLOW_ENDS") = names_of(kFlowEndNames);
  module.attr("FLOW_NOTES") = names_of(kFlowNoteNames);

  py::class_<FlowBatch, std::shared_ptr<FlowBatch>>(module, "FlowBatch")
      .def("__len__", &FlowBatch::size)
      .def("arrays", &flow_arrays)
      .def("community_ids", [](const FlowBatch& batch) {
        std::vector<std::string> out(batch.size());
        {
          const py::gil_scoped_release release;
          for (size_t i = 0; i < out.size(); ++i) out[i] = community_id(batch, i);
        }
        return out;
      });

  py::class_<FlowHandle, std::shared_ptr<FlowHandle>>(module, "FlowTable")
      .def(py::init(&make_table), py::arg("options"))
      .def("update",
           [](FlowHandle& handle, PacketBatch& batch) {
             const std::unique_lock lock = handle.lock();
             const py::gil_scoped_release release;
             handle.table.update(batch);
           })
      .def("finish",
           [](FlowHandle& handle) {
             const std::unique_lock lock = handle.lock();
             const py::gil_scoped_release release;
             handle.table.finish();
           })
      .def("take_finished",
           [](FlowHandle& handle, bool sorted) {
             const std::unique_lock lock = handle.lock();
             std::shared_ptr<FlowBatch> batch = handle.table.take_finished();
             if (sorted) batch->sort();
             return batch;
           })
      .def_property_readonly("finished", [](const FlowHandle& handle) { return handle.table.finished(); })
      .def_property_readonly("slots", [](const FlowHandle& handle) { return handle.table.slots(); })
      .def_property_readonly("stats", &stats);
}
