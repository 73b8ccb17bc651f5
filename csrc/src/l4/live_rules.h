// The rules of a list that can decide a packet: all but those that an earlier rule covers.
//
// What    Rule a covers a later rule b of the same segment when each field that a names is named by b with a set inside
//         a's: whatever packet b does not fail on, a does not fail on either, known or unknown fields alike, so that
//         the walk never gets to b. Tables are built without such rules; explanations still walk the whole list.
// Why     Generated and grown lists repeat and shadow themselves; a structure that carries what can never win is larger
//         and slower for nothing (docs/classifier.md has figures).
// How     Equal rules are found by hash. Else a rule is compared with the widest kCoverers rules before it, and with
//         few of them where that has found nothing. So some covered rules stay, which costs time and no answer.
// Limits  A set counts as inside another if both are the same or the other is one interval. Rules with more than one
//         alternative cover only their equals.
// Example {10/8 -> any :80} covers {10.1/16 -> any :80} and does not cover {10.1/16 -> any}.
#pragma once

#include <memory>
#include <vector>

#include "meshsieve/rule_set.h"

namespace meshsieve {

// Where a walk may enter: its segments begin here. Sorted; the first is 0, the last the number of rules.
std::vector<int32_t> segment_cuts(const RuleSet& rules);

struct LiveRules {
  std::shared_ptr<const RuleSet> rules;  // the given list itself where few rules could be left out
  std::vector<int32_t> given;            // live rule -> rule of the given list; empty where they are the same
};

LiveRules live_rules(std::shared_ptr<const RuleSet> rules);
// The list of the kept rules (sorted) alone, with the sets that they name.
RuleSet only(const RuleSet& rules, const std::vector<int32_t>& kept);

}  // namespace meshsieve
