// Routes at one place of a path tree, in order, and how the first whose match holds is found among them.
//
// What    A list is a range of entries sorted by route. Where many of its entries ask a source (a header, a query
//         parameter, ...) for one certain text, they move to a fan: a hash table from the text to a list of their own;
//         the same for prefixes and suffixes, by each length that occurs. Where many ask for a regular expression, they
//         move to a set automaton (RE2::Set) that finds all of them in one pass.
// Order   An entry behind one that takes everything can never win and is left out. A search carries the best route so
//         far and ends a range at the first entry that is not below it.
// Cost    One probe for each text of the request, kind and length of a fan. A fan begins at kFanFrom entries.
// Limits  Set automata have a memory budget; a set that exceeds it falls back to testing one expression after another.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "meshsieve/regex.h"
#include "route/predicates.h"
#include "route/simple_regex.h"
#include "route/string_table.h"

namespace re2 {
class RE2;
}

namespace meshsieve::route {

constexpr uint32_t kSimpleBit = 0x80000000;

// A route while the table is built.
struct BuildEntry {
  uint32_t route;
  uint32_t check = kNone;               // Lists::add_regex; kNone: the place in the tree says all
  std::vector<uint32_t> conditions;
  std::shared_ptr<const Regex> regex;   // that says the same as check; nullptr: it may not go into a set automaton
  bool takes_everything() const { return check == kNone && conditions.empty(); }
};

// What a candidate is tested with. match_path: without path parameters where the configuration ignores them.
struct Candidate {
  const RequestView& view;
  const int64_t* facts;
  std::string_view match_path;
};

class Lists {
 public:
  explicit Lists(const Predicates& predicates) : predicates_(predicates) {}

  // The check of an entry by a regular expression, and the text at whose place in the tree the entry belongs. raw: of the
  // path as the request has it, not as it is compared.
  uint32_t add_regex(const std::shared_ptr<const Regex>& regex, bool raw, std::string& prefix);

  // A reference to the list of these entries; first: its lowest route; bound: its lowest route that takes everything.
  struct Made {
    uint32_t list = kNone, first = kNone, bound = kNone;
  };
  Made make(std::vector<BuildEntry> entries);
  void freeze() { postings_.freeze(); }

  // Lowers `best` to the first route of the list that holds, if that is lower.
  void search(uint32_t list, const Candidate& candidate, uint32_t& best) const;
  void prefetch(uint32_t list) const {
    if (list & kSingleBit) __builtin_prefetch(&entries_[list & ~kSingleBit]);
    else __builtin_prefetch(&lists_[list]);
  }

  size_t bytes() const;
  size_t fans() const { return fans_.size(); }
  size_t sets() const { return sets_.size(); }
  size_t regexes() const { return regexes_.size(); }
  size_t longest() const { return longest_; }

 private:
  static constexpr uint32_t kSingleBit = 0x80000000;  // of a reference: the list is this one entry
  static constexpr size_t kFanFrom = 6;
  // A set automaton takes about as long as this many simple expressions, each RE2 as kRegexCost of them.
  static constexpr size_t kSetFrom = 96;
  static constexpr size_t kRegexCost = 8;

  // check: position of a regex, or kSimpleBit | 2 * position of a simple one + raw. conditions: position in condition_lists_, or the
  // predicate itself where there is one.
  struct Entry {
    uint32_t route, check, conditions, n_conditions;
  };
  struct List {
    uint32_t begin, end, fan, set;
  };
  // Texts of one source compared in one way; the fan's entries lie in postings_ under `tag`.
  struct FanPart {
    Source source;
    StringMatcher::Kind kind;
    uint32_t tag;
    std::vector<uint32_t> lengths;  // of prefixes and suffixes
  };
  struct RegexSet;

  uint32_t add_entries(const std::vector<BuildEntry>& entries);
  uint32_t make_fan(std::vector<BuildEntry>& entries);
  uint32_t make_set(std::vector<BuildEntry>& entries);
  bool conditions_hold(const Entry& entry, const Candidate& candidate) const;
  bool check_holds(const Entry& entry, const Candidate& candidate) const;
  void search_fan(uint32_t fan, const Candidate& candidate, uint32_t& best) const;
  void search_set(const RegexSet& set, const Candidate& candidate, uint32_t& best) const;

  const Predicates& predicates_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> condition_lists_;
  std::vector<List> lists_;
  std::vector<std::vector<FanPart>> fans_;
  StringTable postings_;
  uint32_t tags_ = 0;
  std::vector<std::shared_ptr<const RegexSet>> sets_;
  struct PathRegex {
    std::shared_ptr<const Regex> regex;
    bool raw;
  };
  std::vector<PathRegex> regexes_;
  SimpleRegexes simple_[2];  // of the path as it is compared, and raw
  size_t longest_ = 0;
};

}  // namespace meshsieve::route
