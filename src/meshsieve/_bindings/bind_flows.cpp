// FlowTable and its records.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
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
  take("apps", out.apps.enabled);
  take("apps_waiting_bytes", out.apps.waiting_bytes);
  take("apps_attribute_bytes", out.apps.attribute_bytes);
  if (options.contains("app_signatures")) {
    out.apps.signatures = options["app_signatures"].cast<std::vector<UserSignature>>();
  }
  return std::make_shared<FlowHandle>(out);
}

py::dict stats(const FlowHandle& handle) {
  const FlowStats stats = handle.table.stats();
  py::dict out;
  out["packets"] = stats.packets;
  out["flows"] = stats.flows;
  out["live"] = handle.table.live();
  out["evicted"] = stats.evicted;
  out["packets_without_flow"] = stats.packets_without_flow;
  out["fragments_waiting"] = stats.fragments_waiting;
  out["fragments_unmatched"] = stats.fragments_unmatched;
  out["fragmented_evicted"] = stats.fragmented_evicted;
  out["dns_answers_dropped"] = stats.dns_answers_dropped;
  out["apps_given_up"] = stats.apps_given_up;
  out["bytes"] = handle.table.bytes();
  return out;
}

// Bytes of captures as text: what is no UTF-8 stands as \\xNN.
py::str text_of(std::string_view bytes) {
  PyObject* text = PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "backslashreplace");
  if (text == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(text);
}

// {attribute: int32 codes}; only attributes that a flow has.
py::dict flow_attributes(const std::shared_ptr<FlowBatch>& batch) {
  const py::capsule base = keep_alive(batch);
  py::dict codes;
  for (size_t i = 0; i < kAttributeCount; ++i) {
    const auto& column = batch->attributes[i];
    if (!column.empty()) codes[kAttributes[i].name] = column_array(ColumnType::i32, column.data(), column.size(), base);
  }
  return codes;
}

// The texts that the codes mean.
py::list flow_texts(const FlowBatch& batch) {
  py::list texts(batch.texts.size());
  for (size_t i = 0; i < batch.texts.size(); ++i) texts[i] = text_of(batch.texts[i]);
  return texts;
}

// The same as UTF-8: (bytes, int64 offsets (n + 1,)).
py::tuple flow_text_buffers(const FlowBatch& batch) {
  const size_t n = batch.texts.size();
  std::string bytes;
  py::array_t<int64_t> offsets(static_cast<py::ssize_t>(n + 1));
  int64_t* end = offsets.mutable_data();
  *end = 0;
  for (size_t i = 0; i < n; ++i) {
    const std::string_view text = batch.texts[i];
    const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
    if (ascii) bytes += text;
    else bytes += text_of(text).cast<std::string>();
    *++end = static_cast<int64_t>(bytes.size());
  }
  return py::make_tuple(py::bytes(bytes), offsets);
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

  const auto named = [](const auto& list) {
    std::vector<std::pair<std::string, std::string>> out;
    for (const NameAndDoc& entry : list) out.emplace_back(entry.name, entry.doc);
    return py::tuple(py::cast(out));
  };
  module.attr("APPS") = named(kApps);
  module.attr("APP_ATTRIBUTES") = named(kAttributes);
  module.attr("APP_HOWS") = names_of(kAppHowNames);
  module.def("app_of_port", [](uint8_t proto, uint16_t port) { return static_cast<uint16_t>(app_of_port(proto, port)); });
  py::class_<UserSignature>(module, "UserSignature")
      .def(py::init([](uint16_t app, uint8_t proto, std::vector<std::pair<uint16_t, uint16_t>> ports, std::string prefix,
                       std::string mask, std::vector<std::string> host_suffixes) {
             if (prefix.size() != mask.size()) throw ModelError("a signature's mask is as long as its prefix");
             return UserSignature{app, proto, std::move(ports), std::move(prefix), std::move(mask),
                                  std::move(host_suffixes)};
           }),
           py::arg("app"), py::arg("proto"), py::arg("ports"), py::arg("prefix"), py::arg("mask"),
           py::arg("host_suffixes"));

  py::class_<FlowBatch, std::shared_ptr<FlowBatch>>(module, "FlowBatch")
      .def("__len__", &FlowBatch::size)
      .def("attributes", &flow_attributes)
      .def("texts", &flow_texts)
      .def("text_buffers", &flow_text_buffers)
      .def("arrays", &flow_arrays)
      .def(
          "community_ids",
          [](const FlowBatch& batch, const py::array_t<int64_t, py::array::c_style | py::array::forcecast>& rows) {
            const auto n = static_cast<size_t>(rows.size());
            const int64_t* row = rows.data();
            for (size_t i = 0; i < n; ++i) {
              if (row[i] < 0 || static_cast<size_t>(row[i]) >= batch.size()) throw py::index_error("no such flow");
            }
            py::array_t<char> out({n, kCommunityId});
            char* at = out.mutable_data();
            {
              const py::gil_scoped_release release;
              for (size_t i = 0; i < n; ++i) put_community_id(batch, static_cast<size_t>(row[i]), at + kCommunityId * i);
            }
            return out;
          },
          py::arg("rows"));

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
      .def("take_dns_answers",
           [](FlowHandle& handle) {
             const std::unique_lock lock = handle.lock();
             py::list out;
             for (const DnsAnswer& answer : handle.table.take_dns_answers()) {
               const size_t skip = answer.ip_ver == 4 ? 12 : 0;
               const char* address = reinterpret_cast<const char*>(answer.address.data()) + skip;
               out.append(py::make_tuple(answer.time_ns, answer.ttl_s, py::bytes(address, 16 - skip), answer.name));
             }
             return out;
           })
      .def_property_readonly("finished", [](const FlowHandle& handle) { return handle.table.finished(); })
      .def_property_readonly("slots", [](const FlowHandle& handle) { return handle.table.slots(); })
      .def_property_readonly("stats", &stats);
}
