// Whether cross-product tables are worth building, told from the rules before any class is known.
//
// Why     A table of theirs costs a look-up about as much as all bitmaps of a thousand rules, so of few rules they win only
//         as one table. Of many rules they win only where few services leave the cells few different nodes; else a
//         build finds out late that nodes exceed the budget, when a third of a second is spent.
// Cost    Microseconds for few rules, a millisecond at 100,000.
#pragma once

#include "meshsieve/rule_set.h"

namespace meshsieve::cross {

bool is_worth_building(const RuleSet& rules, int32_t begin, int32_t end);

}  // namespace meshsieve::cross
