// The SIMD backends: one row of kernels an instruction set, chosen once when a table is compiled.
//
// What    Every kernel is written once in a *_kernel-inl.h file; each backend_<isa>.cpp includes those files inside its
//         own namespace and target region and fills in one Backend row. No file is compiled with -mavx2, so no
//         instruction beyond the baseline can leak into code that runs before the choice.
// Rules   Kernels are static, take plain views (no containers) and use no standard templates, so that no weak symbol
//         leaves a target region. The scalar row is always there and is the truth: all rows answer alike.
// Choice  An explicit name, else the environment variable MESHSIEVE_BACKEND, else the best that this CPU runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "l4/bitmap_views.h"
#include "l4/classes_views.h"
#include "l4/forest_views.h"
#include "l4/sparse_views.h"

namespace meshsieve::simd {

struct Backend {
  const char* name;
  bool (*supported)();

  // Field value -> class, n <= classes::kChunk values.
  void (*search32)(const classes::Search32View&, const uint32_t* values, size_t n, uint32_t* out);
  void (*search128)(const classes::Search128View&, const U128* values, size_t n, uint32_t* out);
  // Classes -> first rule whose bit is set in every dimension, else kNoMatch.
  void (*first_common_bit)(const BitmapView&, const uint32_t* const* ids, size_t n, int32_t* out);
  // The same of sparse rows.
  void (*first_sparse_bit)(const SparseView&, const uint32_t* const* ids, size_t n, int32_t* out);
  // Packets -> first rule of a forest, or what best[] holds already (forest_kernel-inl.h).
  void (*forest_first_match)(const forest::View&, const forest::Packets&, int32_t* best);
};

// All that were compiled in, best first; scalar is the last.
const std::vector<const Backend*>& backends();
// `name` or "auto". Throws BackendError for an unknown name or one that this CPU lacks.
const Backend& backend_named(const std::string& name);

}  // namespace meshsieve::simd
