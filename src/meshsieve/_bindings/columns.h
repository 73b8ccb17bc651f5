// C++ columns as numpy arrays without a copy: the array's base is an object that owns the memory.
#pragma once

#include <pybind11/numpy.h>

#include <memory>

#include "meshsieve/packet_batch.h"

// An object that keeps `owner` alive; the base of every array over its memory.
template <class Owner>
pybind11::capsule keep_alive(std::shared_ptr<Owner> owner) {
  return pybind11::capsule(new std::shared_ptr<Owner>(std::move(owner)),
                           [](void* pointer) { delete static_cast<std::shared_ptr<Owner>*>(pointer); });
}

// A read-only array of n rows; an address column has shape (n, 2) of uint64: high and low word.
inline pybind11::array column_array(meshsieve::ColumnType type, const void* data, size_t n,
                                    const pybind11::object& base) {
  namespace py = pybind11;
  using meshsieve::ColumnType;
  const auto make = [&]<class T>(T) { return py::array(py::dtype::of<T>(), {n}, {sizeof(T)}, data, base); };
  py::array array = [&] {
    switch (type) {
      case ColumnType::u8: return make(uint8_t{});
      case ColumnType::u16: return make(uint16_t{});
      case ColumnType::u32: return make(uint32_t{});
      case ColumnType::u64: return make(uint64_t{});
      case ColumnType::i32: return make(int32_t{});
      case ColumnType::i64: return make(int64_t{});
      case ColumnType::boolean: return make(bool{});
      case ColumnType::address: break;
    }
    return py::array(py::dtype::of<uint64_t>(), {n, size_t{2}}, {size_t{16}, size_t{8}}, data, base);
  }();
  py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  return array;
}
