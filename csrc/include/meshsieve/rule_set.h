// The symbolic rule model: ordered rules over sets of values. Every importer writes it, every engine compiles it.
//
// What    A rule is a conjunction over fields; each field is constrained to a *set* (prefixes, ranges, single values,
//         negations: all stored as sorted disjoint intervals). Services, which are a disjunction of (protocol, ports)
//         pairs, are the rule's alternatives: the rule matches if its common part matches and, when it has
//         alternatives, at least one of them does.
//         Sets are interned: a group used by 500 rules is stored once, and a rule of 200 x 300 addresses x 12
//         services is one rule with three set ids, never 720,000 rules.
// Order   The list is walked from rule 0. The first rule that does not certainly fail ends the walk, unless its action
//         is Skip: then the walk goes on at rule skip_to (> its own index). Skip is how chains return and how
//         JUMP_TO_APPLICATION leaves a category.
// Limits  at most 2^31 - 2 rules (results are int32, see types.h).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "meshsieve/fields.h"
#include "meshsieve/types.h"

namespace meshsieve {

struct Interval {
  U128 lo, hi;  // inclusive
  friend constexpr bool operator==(const Interval&, const Interval&) = default;
};

// A canonical set: sorted, disjoint, not touching. Numbers and names use `v4` only (the value in U128::lo).
struct ValueSet {
  std::vector<Interval> v4;
  std::vector<Interval> v6;

  bool contains(U128 value, bool is_v6) const;
  friend bool operator==(const ValueSet&, const ValueSet&) = default;
};

// Set id per field; kAnySet leaves the field free.
using SetId = int32_t;
inline constexpr SetId kAnySet = 0;
using Match = std::array<SetId, kFieldCount>;

enum class Action : uint8_t { Allow, Drop, Reject, Skip, Undecided };

struct RuleSet {
  std::vector<ValueSet> sets;               // sets[kAnySet] is never looked at
  std::vector<Match> common;                // one a rule
  std::vector<uint32_t> alternative_begin;  // rules + 1 offsets into `alternatives`; an empty span = no restriction
  std::vector<Match> alternatives;
  std::vector<Action> action;               // one a rule
  std::vector<int32_t> skip_to;             // one a rule; -1 unless action is Skip
  std::vector<uint8_t> certain;             // 0: the rule also holds a clause that cannot be interpreted (UNKNOWN)

  int32_t size() const { return static_cast<int32_t>(common.size()); }
  // Throws ModelError naming the rule and what is wrong: ids or offsets out of range, a set that is not canonical or
  // leaves the field's domain, a skip that does not go forward.
  void validate() const;
  // Bit mask of the fields that any rule constrains.
  uint32_t fields_used() const;
};

}  // namespace meshsieve
