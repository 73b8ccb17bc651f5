// The choice of an engine for engine="auto".
#pragma once

#include <memory>
#include <vector>

#include "meshsieve/classifier.h"

namespace meshsieve {

// The fastest table for rules [begin, end) on headers sampled from them. What was tried is appended to `candidates`,
// the one that was taken marked.
std::unique_ptr<EngineTable> choose_engine(const std::shared_ptr<const RuleSet>& rules, int32_t begin, int32_t end,
                                           const CompileOptions& options, std::vector<Candidate>& candidates);

}  // namespace meshsieve
