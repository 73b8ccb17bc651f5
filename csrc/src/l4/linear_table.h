// The linear reference as an engine: for checks, for a handful of rules, and where no table fits the budget.
#pragma once

#include <memory>

#include "meshsieve/classifier.h"

namespace meshsieve {

std::unique_ptr<EngineTable> build_linear(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                          const CompileOptions& options);
std::unique_ptr<EngineTable> load_linear(saved::Reader& reader, std::shared_ptr<const RuleSet> rules, int32_t begin,
                                         int32_t end, const simd::Backend& backend);

}  // namespace meshsieve
