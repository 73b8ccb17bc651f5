#include "meshsieve/key_index.h"

#include <random>
#include <stdexcept>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace meshsieve {
namespace {

constexpr size_t kSmallest = 64;
constexpr int32_t kMost = INT32_MAX;

}  // namespace

KeyIndex::KeyIndex() {
  std::random_device random;
  seed_ = static_cast<uint64_t>(random()) << 32 | random();
  clear();
}

void KeyIndex::clear() {
  bytes_.clear();
  ends_.assign(1, 0);
  hashes_.clear();
  slots_.assign(kSmallest, Slot{});
  mask_ = kSmallest - 1;
}

size_t KeyIndex::place(std::string_view wanted, uint64_t hash) const {
  const uint32_t tag = static_cast<uint32_t>(hash >> 32);
  for (size_t at = hash & mask_;; at = (at + 1) & mask_) {
    const Slot& slot = slots_[at];
    if (slot.code == kMissing || (slot.tag == tag && key(slot.code) == wanted)) return at;
  }
}

int32_t KeyIndex::find(std::string_view wanted) const {
  return slots_[place(wanted, XXH3_64bits_withSeed(wanted.data(), wanted.size(), seed_))].code;
}

int32_t KeyIndex::code(std::string_view wanted) {
  const uint64_t hash = XXH3_64bits_withSeed(wanted.data(), wanted.size(), seed_);
  const size_t at = place(wanted, hash);
  if (slots_[at].code != kMissing) return slots_[at].code;
  if (size() == kMost) throw std::length_error("an index holds no more keys");
  const int32_t made = size();
  bytes_.append(wanted);
  ends_.push_back(bytes_.size());
  hashes_.push_back(hash);
  slots_[at] = {static_cast<uint32_t>(hash >> 32), made};
  if (2 * hashes_.size() > slots_.size()) grow();
  return made;
}

void KeyIndex::grow() {
  slots_.assign(4 * slots_.size(), Slot{});
  mask_ = slots_.size() - 1;
  for (size_t code = 0; code < hashes_.size(); ++code) {
    size_t at = hashes_[code] & mask_;
    while (slots_[at].code != kMissing) at = (at + 1) & mask_;
    slots_[at] = {static_cast<uint32_t>(hashes_[code] >> 32), static_cast<int32_t>(code)};
  }
}

}  // namespace meshsieve
