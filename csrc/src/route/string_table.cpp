#include "route/string_table.h"

#include <xxhash.h>

#include <bit>
#include <cstring>
#include <random>

#include "meshsieve/errors.h"

namespace meshsieve::route {

StringTable::StringTable() {
  std::random_device random;
  seed_ = static_cast<uint64_t>(random()) << 32 | random();
}

void StringTable::put(uint32_t tag, std::string_view key, uint32_t value) {
  if (keys_.size() >= kNone - 1 || key.size() >= kNone) throw CompileError("a route table holds at most 2^32 - 2 keys");
  keys_.push_back({text_.size(), static_cast<uint32_t>(key.size()), tag, value});
  text_.append(key);
}

void StringTable::freeze() {
  if (keys_.empty()) return;
  const size_t wanted = std::bit_ceil(keys_.size() * 2);
  slots_.assign(wanted, Slot{});
  mask_ = wanted - 1;
  for (const Key& key : keys_) {
    const std::string_view text(text_.data() + key.begin, key.size);
    const uint64_t h = hash(key.tag, text);
    uint64_t i = h & mask_;
    const auto is_key = [&](const Slot& slot) {
      return slot.tag == key.tag && std::string_view(text_.data() + slot.begin, slot.size) == text;
    };
    while (slots_[i].used && !is_key(slots_[i])) i = (i + 1) & mask_;
    slots_[i] = {h, key.begin, key.size, key.tag, key.value, 1};
  }
}

uint64_t StringTable::hash(uint32_t tag, std::string_view key) const {
  return XXH3_64bits_withSeed(key.data(), key.size(), seed_ + tag * 0x9E3779B97F4A7C15ull);
}

uint32_t StringTable::find(uint64_t h, uint32_t tag, std::string_view key) const {
  if (slots_.empty()) return kNone;
  for (uint64_t i = h & mask_; slots_[i].used; i = (i + 1) & mask_) {
    const Slot& slot = slots_[i];
    if (slot.hash == h && slot.tag == tag && slot.size == key.size() &&
        std::memcmp(text_.data() + slot.begin, key.data(), key.size()) == 0)
      return slot.value;
  }
  return kNone;
}

}  // namespace meshsieve::route
