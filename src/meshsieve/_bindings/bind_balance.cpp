// Building the tables and rotations of meshsieve.balance. Picks are in _fast_balance.pyx, which receives a table
// through a capsule.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "meshsieve/balance/hash.h"
#include "meshsieve/balance/maglev.h"
#include "meshsieve/balance/ring_hash.h"
#include "meshsieve/balance/rotation.h"
#include "meshsieve/errors.h"

namespace py = pybind11;
using namespace meshsieve;
using namespace meshsieve::balance;

namespace {

constexpr const char* kCapsuleName = "meshsieve.HostTable/1";

py::capsule capsule_of(const HostTablePtr& table) {
  return py::capsule(new HostTablePtr(table), kCapsuleName, [](PyObject* capsule) {
    delete static_cast<HostTablePtr*>(PyCapsule_GetPointer(capsule, kCapsuleName));
  });
}

// For builders that run without the interpreter lock: Ctrl-C becomes the Python exception.
void stop_on_signal() {
  py::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

template <class T>
py::array_t<T> array_of(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

std::vector<Share> shares_of(std::vector<std::string> keys, const std::vector<double>& weights,
                             const std::vector<int32_t>& ids) {
  if (keys.size() != weights.size() || keys.size() != ids.size())
    throw BalanceError("keys, weights and ids must have one length");
  std::vector<Share> shares;
  shares.reserve(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    if (!(weights[i] > 0)) throw BalanceError("host '" + keys[i] + "' has a share of 0; a weight is at least 1");
    if (ids[i] < 0) throw BalanceError("a host id is at least 0");
    shares.push_back({std::move(keys[i]), weights[i], ids[i]});
  }
  return shares;
}

template <class Rotation>
void bind_rotation(py::module_& module, const char* name) {
  py::class_<Rotation>(module, name)
      .def(py::init<const std::vector<uint64_t>&>(), py::arg("weights"))
      .def("next", &Rotation::next)
      .def("take",
           [](Rotation& rotation, size_t n) {
             py::array_t<int32_t> out(static_cast<py::ssize_t>(n));
             int32_t* host = out.mutable_data();
             for (size_t i = 0; i < n; ++i) {
               host[i] = rotation.next();
               if (i % (1 << 16) == 0 && PyErr_CheckSignals() != 0) throw py::error_already_set();
             }
             return out;
           })
      .def("copy", [](const Rotation& rotation) { return Rotation(rotation); });
}

}  // namespace

void bind_balance(py::module_& module) {
  py::class_<HostTable, std::shared_ptr<HostTable>>(module, "HostTable")
      .def_property_readonly("bytes", &HostTable::bytes)
      .def_property_readonly("capsule", [](const std::shared_ptr<HostTable>& t) { return capsule_of(t); });

  py::class_<MaglevTable, HostTable, std::shared_ptr<MaglevTable>>(module, "MaglevTable")
      .def_property_readonly("slots", [](const MaglevTable& t) { return array_of(t.slots()); });
  py::class_<RingTable, HostTable, std::shared_ptr<RingTable>>(module, "RingTable")
      .def_property_readonly("hashes", [](const RingTable& t) { return array_of(t.hashes()); })
      .def_property_readonly("hosts", [](const RingTable& t) { return array_of(t.hosts()); });

  module.def(
      "maglev_table",
      [](std::vector<std::string> keys, const std::vector<double>& weights, const std::vector<int32_t>& ids,
         uint32_t table_size) {
        const std::vector<Share> shares = shares_of(std::move(keys), weights, ids);
        py::gil_scoped_release release;
        return std::const_pointer_cast<MaglevTable>(build_maglev(shares, table_size, stop_on_signal));
      },
      py::arg("keys"), py::arg("weights"), py::arg("ids"), py::arg("table_size"));
  module.def(
      "katran_table",
      [](const std::vector<uint64_t>& hashes, const std::vector<uint32_t>& weights, uint32_t table_size) {
        if (hashes.size() != weights.size()) throw BalanceError("hashes and weights must have one length");
        std::vector<KatranEndpoint> endpoints;
        for (size_t i = 0; i < hashes.size(); ++i) endpoints.push_back({hashes[i], weights[i]});
        py::gil_scoped_release release;
        return std::const_pointer_cast<MaglevTable>(build_katran(endpoints, table_size, stop_on_signal));
      },
      py::arg("hashes"), py::arg("weights"), py::arg("table_size"));
  module.def(
      "ring_table",
      [](std::vector<std::string> keys, const std::vector<double>& weights, const std::vector<int32_t>& ids,
         uint64_t minimum, uint64_t maximum, bool murmur2) {
        const std::vector<Share> shares = shares_of(std::move(keys), weights, ids);
        const auto function = murmur2 ? RingHashFunction::Murmur2 : RingHashFunction::XxHash;
        py::gil_scoped_release release;
        return std::const_pointer_cast<RingTable>(RingTable::build(shares, minimum, maximum, function, stop_on_signal));
      },
      py::arg("keys"), py::arg("weights"), py::arg("ids"), py::arg("minimum"), py::arg("maximum"), py::arg("murmur2"));
  module.def(
      "cumulative_table",
      [](const std::vector<uint64_t>& weights) { return std::const_pointer_cast<HostTable>(cumulative_table(weights)); },
      py::arg("weights"));
  module.def(
      "uniform_table", [](int32_t n) { return std::const_pointer_cast<HostTable>(uniform_table(n)); },
      py::arg("n_hosts"));
  module.def(
      "level_table",
      [](const std::array<uint8_t, kPriorityResidues>& level_of, const std::vector<std::shared_ptr<HostTable>>& levels) {
        return std::const_pointer_cast<HostTable>(level_table(level_of, {levels.begin(), levels.end()}));
      },
      py::arg("level_of"), py::arg("levels"));
  module.def(
      "pick_bounded",
      [](const HostTable& table, std::vector<std::string> keys, const std::vector<double>& weights,
         const std::vector<int32_t>& ids, const std::vector<uint64_t>& active, uint32_t factor, uint64_t hash,
         uint32_t attempt) {
        const std::vector<Share> shares = shares_of(std::move(keys), weights, ids);
        for (const Share& share : shares)
          if (static_cast<size_t>(share.id) >= active.size()) throw BalanceError("active needs one count a host");
        return pick_bounded(table, shares, active, factor, hash, attempt);
      },
      py::arg("table"), py::arg("keys"), py::arg("weights"), py::arg("ids"), py::arg("active"), py::arg("factor"),
      py::arg("hash"), py::arg("attempt"));

  bind_rotation<EdfRotation>(module, "EdfRotation");
  bind_rotation<SmoothRotation>(module, "SmoothRotation");

  module.def(
      "xxh64", [](const std::string& bytes, uint64_t seed) { return xxh64(bytes, seed); }, py::arg("bytes"),
      py::arg("seed") = 0);
  module.def(
      "murmur2_64a", [](const std::string& bytes, uint64_t seed) { return murmur2_64a(bytes, seed); },
      py::arg("bytes"), py::arg("seed") = kStdHashSeed);
  module.def("murmur3_pair", &murmur3_pair, py::arg("a"), py::arg("b"), py::arg("seed"));
}
