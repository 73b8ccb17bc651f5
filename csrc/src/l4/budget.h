// How many bytes of tables a rule set may take.
#pragma once

#include <algorithm>

#include "meshsieve/classifier.h"

namespace meshsieve {

// 256 bytes a rule + 2 MB: what an engine aims at when the caller sets nothing.
inline size_t usual_bytes(size_t n_rules) { return n_rules * 256 + (size_t{2} << 20); }

// What no engine may exceed: the caller's budget; else the usual, or 16 MB where that is more, because policies of
// large groups have many address classes and few rules.
inline size_t most_bytes(const CompileOptions& options, size_t n_rules) {
  return options.budget_bytes != 0 ? options.budget_bytes : std::max(usual_bytes(n_rules), size_t{16} << 20);
}

}  // namespace meshsieve
