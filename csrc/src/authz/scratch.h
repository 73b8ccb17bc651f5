// What one thread keeps between decisions: the set of passed tests, and memory that is used again.
#pragma once

#include <algorithm>
#include <bit>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "authz/radix.h"
#include "meshsieve/authz_table.h"

namespace meshsieve::authz {

// A small set of numbers that fits the first-level cache: a request passes a few dozen tests.
class NumberSet {
 public:
  NumberSet() : slots_(kSmall, kNone), shift_(32 - std::countr_zero(kSmall)) {}

  bool has(uint32_t number) const {
    for (uint32_t at = number * kMix >> shift_;; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at] == number) return true;
      if (slots_[at] == kNone) return false;
    }
  }
  // Whether it was not there.
  bool add(uint32_t number) {
    uint32_t at = number * kMix >> shift_;
    for (; slots_[at] != kNone; at = (at + 1) & (slots_.size() - 1))
      if (slots_[at] == number) return false;
    slots_[at] = number;
    all_.push_back(number);
    if (all_.size() * 2 > slots_.size()) grow();
    return true;
  }
  void clear() {
    if (slots_.size() > kSmall) {
      slots_.assign(kSmall, kNone);
      shift_ = 32 - std::countr_zero(kSmall);
    } else if (!all_.empty()) {
      std::fill(slots_.begin(), slots_.end(), kNone);
    }
    all_.clear();
  }
  const std::vector<uint32_t>& all() const { return all_; }

 private:
  static constexpr uint32_t kSmall = 128, kMix = 0x9e3779b1u;

  void grow() {
    slots_.assign(slots_.size() * 2, kNone);
    --shift_;
    for (const uint32_t number : all_) {
      uint32_t at = number * kMix >> shift_;
      while (slots_[at] != kNone) at = (at + 1) & (slots_.size() - 1);
      slots_[at] = number;
    }
  }

  std::vector<uint32_t> slots_;
  std::vector<uint32_t> all_;
  int shift_;
};

// A text that may be in the index of tests.
struct Probe {
  uint64_t hash;
  std::string_view text;
  uint32_t kind;  // key and operator
};

struct AuthzScratch::State {
  NumberSet passed;   // tests that the request passes
  NumberSet failed;   // tests of regular expressions that were run and failed
  std::vector<uint32_t> covers;  // those of `passed` that rules hang under
  std::vector<Probe> probes;
  std::vector<std::pair<uint32_t, uint32_t>> likely;  // probe and test whose hashes agree
  std::deque<std::string> folded;                     // what folded probes point into
  size_t n_folded = 0;
  char port[8];
  std::vector<int32_t> found;     // by lane: rule, kNoRule or kNotReached
  std::vector<uint64_t> bits;     // two rows of bitmaps
  std::vector<int8_t> answers;    // by opaque test: 1 holds, 0 does not, -1 unknown
  int32_t asked = -1;
};

}  // namespace meshsieve::authz
