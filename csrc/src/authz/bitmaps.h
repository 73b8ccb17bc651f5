// Rules without a rare cover, as bitmaps: the few words that survive an AND name the rules to run.
//
// What    The parts of a rule that are joined by `all` and are lists of tests of one key are its *conditions*. A key's
//         row has a bit a rule: set where the rule has no condition on that key, or a passed test satisfies it. The rows of
//         all keys are ANDed; what they leave is run in order, so the first rule that holds is the one reported.
//         A test that stands in many rules keeps a bitmap, one that stands in few a list of them: never more than 4 bytes
//         a mention. Negated conditions clear the bits of rules that a passed test excludes.
// Why     Running rules one by one costs 5 to 20 ns each; 64 of them a word cost less than one.
// Cost    rules / 64 words a key that conditions use, and again for each passed test with a bitmap.
// Source  Lakshman, Stiliadis, High-speed policy-based packet forwarding, SIGCOMM 1998.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "authz/expression.h"
#include "authz/scratch.h"

namespace meshsieve::authz {

class Bitmaps {
 public:
  // Whether a rule has a condition for a row.
  static bool takes(const Expressions& expressions, uint32_t node, const std::vector<uint32_t>& key_of,
                    const TestFacts& facts);

  // Rules in order; `node` of each in `expressions`; key_of[test] tells which tests are of one key.
  Bitmaps(const Expressions& expressions, const std::vector<uint32_t>& nodes, const std::vector<uint32_t>& key_of,
          const TestFacts& facts);

  // Bits of the rules that may hold, in `bits` (its first `words()` words).
  void candidates(const NumberSet& passed, std::vector<uint64_t>& bits) const;
  size_t words() const { return words_; }
  size_t bytes() const;

 private:
  struct Use {
    uint32_t row;
    bool excludes;
    std::vector<uint64_t> bitmap;  // or, if empty,
    std::vector<uint32_t> rules;
  };

  size_t words_;
  std::vector<std::vector<uint64_t>> free_;  // by row: rules without a condition
  std::unordered_map<uint32_t, std::vector<Use>> uses_;  // by number of the test
};

}  // namespace meshsieve::authz
