// Signature -> number, in one array: what builders of tables ask millions of times whether they have seen something.
//
// Open addressing with linear steps; at most half full. Signatures are random bits, so their own bits are the hash.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "l4/signature.h"

namespace meshsieve {

class FlatMap {
 public:
  // The number of a signature, which becomes `value` where it is new, and whether it was.
  std::pair<uint32_t&, bool> try_emplace(const Signature& key, uint32_t value) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    Slot& slot = place(key);
    const bool is_new = !slot.used;
    if (is_new) {
      slot = {key, value, true};
      ++size_;
    }
    return {slot.value, is_new};
  }
  size_t size() const { return size_; }

 private:
  struct Slot {
    Signature key;
    uint32_t value = 0;
    bool used = false;
  };

  Slot& place(const Signature& key) {
    size_t at = key.a & (slots_.size() - 1);
    while (slots_[at].used && !(slots_[at].key == key)) at = (at + 1) & (slots_.size() - 1);
    return slots_[at];
  }
  void grow() {
    std::vector<Slot> old(slots_.empty() ? 64 : 2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old)
      if (slot.used) place(slot.key) = slot;
  }

  std::vector<Slot> slots_;
  size_t size_ = 0;
};

}  // namespace meshsieve
