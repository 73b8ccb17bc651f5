// The decision forest as an engine: a compiled list.
#pragma once

#include <memory>

#include "l4/forest_table.h"
#include "meshsieve/classifier.h"

namespace meshsieve::forest {

// A forest over rules [begin, end), or the linear reference where even one leaf is beyond the budget.
std::unique_ptr<EngineTable> build_forest(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                          const CompileOptions& options);
std::unique_ptr<EngineTable> load_forest(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin,
                                         int32_t end, const simd::Backend& backend);

}  // namespace meshsieve::forest
