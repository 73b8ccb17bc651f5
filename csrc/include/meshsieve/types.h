// Values that every layer shares: 128-bit addresses, rule results.
//
// Byte order  Everything behind the decoder is in host order; network order exists only inside packet/.
// Addresses   A U128 holds either family. IPv4 sits in the low 32 bits with the rest 0; which family it is
//             is said beside it (the ip_ver field), never guessed from the value, so ::1.2.3.4 and 1.2.3.4
//             cannot be confused.
#pragma once

#include <compare>
#include <cstdint>

namespace meshsieve {

struct U128 {
  uint64_t hi = 0;
  uint64_t lo = 0;

  friend constexpr auto operator<=>(const U128&, const U128&) = default;

  static constexpr U128 max() { return {~uint64_t{0}, ~uint64_t{0}}; }
  // Wraps at the ends; callers test against 0 and max() first.
  constexpr U128 next() const { return {hi + (lo == ~uint64_t{0}), lo + 1}; }
  constexpr U128 previous() const { return {hi - (lo == 0), lo - 1}; }
};
static_assert(sizeof(U128) == 16, "address columns are read as two uint64 a row");

// What a rule look-up answers, in one int32:
//   r >= 0   rule r matches for certain and is the first rule that does not certainly fail
//   -1       no rule matches
//   -(r+2)   the walk reached rule r and cannot decide it: the packet lacks a field that r names, or r holds a
//            clause that no importer can interpret (three-valued matching, docs/semantics.md)
// The default action belongs to the caller, so that no table has to guess it.
using RuleResult = int32_t;
inline constexpr RuleResult kNoMatch = -1;
constexpr RuleResult undecided_at(int32_t rule) { return -rule - 2; }
constexpr bool is_undecided(RuleResult result) { return result <= -2; }
constexpr int32_t rule_of(RuleResult result) { return is_undecided(result) ? -result - 2 : result; }

}  // namespace meshsieve
