// The linear reference as an engine: for checks, for a handful of rules, and where no table fits the budget.
#pragma once

#include <memory>

#include "meshsieve/classifier.h"

namespace meshsieve {

std::unique_ptr<EngineTable> build_linear(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end,
                                          const CompileOptions& options);

}  // namespace meshsieve
