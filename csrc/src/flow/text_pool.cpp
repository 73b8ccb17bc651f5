#include "meshsieve/text_pool.h"

#include <algorithm>
#include <limits>
#include <random>
#include <stdexcept>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace meshsieve {

namespace {

uint64_t process_seed() {
  static const uint64_t seed = [] {
    std::random_device random;
    return uint64_t{random()} << 32 | random();
  }();
  return seed;
}

}  // namespace

int32_t TextPool::number(std::string_view text) {
  if (entries_.size() <= 2 * ends_.size()) grow();
  const auto hash = static_cast<uint32_t>(XXH3_64bits_withSeed(text.data(), text.size(), process_seed()));
  const size_t mask = entries_.size() - 1;
  size_t at = hash & mask;
  for (; entries_[at].number != kFree; at = (at + 1) & mask) {
    if (entries_[at].hash == hash && (*this)[static_cast<size_t>(entries_[at].number)] == text) return entries_[at].number;
  }
  if (ends_.size() >= std::numeric_limits<int32_t>::max()) throw std::length_error("a pool holds at most 2^31 - 1 texts");
  const auto number = static_cast<int32_t>(ends_.size());
  bytes_ += text;
  ends_.push_back(bytes_.size());
  entries_[at] = {hash, number};
  return number;
}

void TextPool::grow() {
  constexpr size_t kFirst = 256;
  std::vector<Entry> old(std::max(kFirst, 2 * entries_.size()), Entry{0, kFree});
  old.swap(entries_);
  const size_t mask = entries_.size() - 1;
  for (const Entry& entry : old) {
    if (entry.number == kFree) continue;
    size_t at = entry.hash & mask;
    while (entries_[at].number != kFree) at = (at + 1) & mask;
    entries_[at] = entry;
  }
}

void TextPool::clear() {
  bytes_.clear();
  ends_.clear();
  std::fill(entries_.begin(), entries_.end(), Entry{0, kFree});
}

}  // namespace meshsieve
