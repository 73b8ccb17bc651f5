// What the linear reference says about single rules: for engines that must check a rule exactly, and for explain().
#pragma once

#include <cstdint>
#include <vector>

#include "meshsieve/rule_set.h"

namespace meshsieve {

// Kleene logic: AND is the minimum, OR the maximum of No < Maybe < Yes.
enum class Truth : uint8_t { No, Maybe, Yes };

// The whole rule: its fields, its alternatives, and whether it is certain.
Truth reference_truth(const RuleSet& rules, const PacketKey& key, int32_t rule);

// How one rule of a walk fared. `failed` and `unknown` are masks of fields; where the common part holds and no
// alternative does, they are those of all the alternatives together.
struct RuleTest {
  int32_t rule;
  Truth truth;
  uint32_t failed;
  uint32_t unknown;
};

// Every rule that the walk tests, in order, Skip followed; the last one decides unless its truth is No or it skips.
std::vector<RuleTest> reference_trace(const RuleSet& rules, const PacketKey& key);

}  // namespace meshsieve
