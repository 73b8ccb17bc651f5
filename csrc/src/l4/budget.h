// How many bytes of tables a rule set may take.
#pragma once

#include <algorithm>

#include "meshsieve/classifier.h"

namespace meshsieve {

// 256 bytes a rule + 2 MB: what an engine aims at when the caller sets nothing.
inline size_t usual_bytes(size_t n_rules) { return n_rules * 256 + (size_t{2} << 20); }

// What class tables may not exceed: the caller's budget; else the usual, or 16 MB, or twice what the rules' sets take in
// memory where that is more: policies of large groups have many address classes and few rules.
inline size_t most_bytes(const CompileOptions& options, const RuleSet& rules, size_t n_rules) {
  if (options.budget_bytes != 0) return options.budget_bytes;
  size_t intervals = 0;
  for (const ValueSet& set : rules.sets) intervals += set.v4.size() + set.v6.size();
  return std::max({usual_bytes(n_rules), size_t{16} << 20, 2 * sizeof(Interval) * intervals});
}

}  // namespace meshsieve
