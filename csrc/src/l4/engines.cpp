// The registry of engines, in the order in which "auto" prefers them.
#include "l4/bitmap_table.h"
#include "l4/cross_table.h"
#include "l4/forest_engine.h"
#include "l4/linear_table.h"
#include "l4/sparse_table.h"
#include "meshsieve/classifier.h"

namespace meshsieve {

const std::vector<EngineInfo>& engines() {
  static const std::vector<EngineInfo> kEngines = {
      {"linear", "the reference: every rule in turn; for checks, and for a handful of rules", build_linear,
       load_linear},
      {"bitmap", "one bit a rule and class: small or changing sets, large groups, overlapping ranges", build_bitmap,
       load_bitmap},
      {"sparse", "the same without the empty parts of rows: thousands of rules over many groups", build_sparse,
       load_sparse},
      {"cross", "products of address classes: thousands of rules that few distinct services tell apart",
       cross::build_cross, cross::load_cross},
      {"forest", "trees with SIMD leaves: large sets, and whatever else must fit the memory budget",
       forest::build_forest, forest::load_forest},
  };
  return kEngines;
}

}  // namespace meshsieve
