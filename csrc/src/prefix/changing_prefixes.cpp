#include "prefix/changing_prefixes.h"

#include <algorithm>
#include <chrono>
#include <thread>

namespace meshsieve::prefix {

// Holds the active side while it lives.
class ChangingPrefixes::Reading {
 public:
  explicit Reading(const ChangingPrefixes& table) {
    for (;;) {
      const uint32_t active = table.active_.load();
      side_ = &table.sides_[active];
      side_->readers.fetch_add(1);
      if (table.active_.load() == active) return;
      side_->readers.fetch_sub(1);  // an update came between: this side may be under change
    }
  }
  ~Reading() { side_->readers.fetch_sub(1, std::memory_order_release); }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;
  const Tables* operator->() const { return &side_->tables; }

 private:
  const Side* side_;
};

ChangingPrefixes::ChangingPrefixes(const Items& items) {
  for (const auto& [prefix, value] : items) make(sides_[0].tables, step_of(sides_[0].tables, {prefix, value}));
  sides_[1].tables = sides_[0].tables;
}

uint32_t ChangingPrefixes::find(const Tables& tables, const Prefix& prefix) {
  return prefix.is_v6 ? tables.v6.find(prefix.address, prefix.bits)
                      : tables.v4.find(static_cast<uint32_t>(prefix.address.lo), prefix.bits);
}

ChangingPrefixes::Step ChangingPrefixes::step_of(const Tables& tables, const Change& change) {
  const uint32_t id = find(tables, change.prefix);
  if (!change.value) {
    if (id == 0) return {change.prefix, 0, 0, Step::kErase};  // removed twice
    free_ids_.push_back(id);
    --size_;
    return {change.prefix, id, 0, Step::kErase};
  }
  if (id != 0) return {change.prefix, id, *change.value, Step::kSet};
  ++size_;
  if (free_ids_.empty()) return {change.prefix, next_id_++, *change.value, Step::kInsert};
  const uint32_t used = free_ids_.back();
  free_ids_.pop_back();
  return {change.prefix, used, *change.value, Step::kInsert};
}

void ChangingPrefixes::make(Tables& tables, const Step& step) {
  const Prefix& prefix = step.prefix;
  const auto v4 = static_cast<uint32_t>(prefix.address.lo);
  if (step.what == Step::kErase) {
    if (step.id == 0) return;
    prefix.is_v6 ? tables.v6.erase(prefix.address, prefix.bits) : tables.v4.erase(v4, prefix.bits);
    return;
  }
  if (tables.value.size() <= step.id) tables.value.resize(std::max<size_t>(step.id + 1, 2 * tables.value.size()));
  tables.value[step.id] = step.value;
  if (step.what == Step::kSet) return;
  prefix.is_v6 ? tables.v6.insert(prefix.address, prefix.bits, step.id) : tables.v4.insert(v4, prefix.bits, step.id);
}

bool ChangingPrefixes::apply(std::span<const Change> changes) {
  for (const Change& change : changes)
    if (!change.value && find(active(), change.prefix) == 0) return false;
  const uint32_t other = 1 - active_.load();
  while (sides_[other].readers.load(std::memory_order_acquire) != 0)
    std::this_thread::sleep_for(std::chrono::microseconds(10));
  Tables& tables = sides_[other].tables;
  const size_t size_before = size_;
  if (torn_) tables = active();
  else for (const Step& step : missed_) make(tables, step);
  missed_.clear();
  torn_ = true;
  try {
    for (const Change& change : changes) {
      missed_.push_back(step_of(tables, change));
      make(tables, missed_.back());
    }
  } catch (...) {  // out of memory: the active side is as it was, the ids given out are lost
    size_ = size_before;
    free_ids_.clear();
    missed_.clear();
    throw;
  }
  torn_ = false;
  active_.store(other);
  return true;
}

std::optional<int64_t> ChangingPrefixes::exact(const Prefix& prefix) const {
  const uint32_t id = find(active(), prefix);
  return id == 0 ? std::nullopt : std::optional(active().value[id]);
}

ChangingPrefixes::Items ChangingPrefixes::items() const {
  Items out;
  std::vector<Trie<uint32_t>::Item> v4;
  std::vector<Trie<U128>::Item> v6;
  active().v4.items(v4);
  active().v6.items(v6);
  for (const auto& item : v4) out.push_back({{false, {0, item.address}, item.bits}, active().value[item.id]});
  for (const auto& item : v6) out.push_back({{true, item.address, item.bits}, active().value[item.id]});
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return out;
}

size_t ChangingPrefixes::bytes() const {
  size_t bytes = 0;
  for (const Side& side : sides_)
    bytes += side.tables.v4.bytes() + side.tables.v6.bytes() + side.tables.value.capacity() * sizeof(int64_t);
  return bytes;
}

template <class Address>
int64_t ChangingPrefixes::lookup(Address address, int64_t missing) const {
  const Reading tables(*this);
  uint32_t id;
  if constexpr (sizeof(Address) == 4) id = tables->v4.lookup(address);
  else id = tables->v6.lookup(address);
  return id == 0 ? missing : tables->value[id];
}
template int64_t ChangingPrefixes::lookup(uint32_t address, int64_t missing) const;
template int64_t ChangingPrefixes::lookup(U128 address, int64_t missing) const;

void ChangingPrefixes::lookup_batch(const void* addresses, uint32_t width, const uint8_t* is_v6, size_t n,
                                    int64_t missing, int64_t* out) const {
  constexpr size_t kTogether = Trie<uint32_t>::kTogether;
  const Reading tables(*this);
  uint32_t id[kTogether], v4_id[kTogether], v4[kTogether];
  for (size_t first = 0; first < n; first += kTogether) {
    const size_t m = std::min(kTogether, n - first);
    if (width == 4) {
      tables->v4.lookup(static_cast<const uint32_t*>(addresses) + first, m, id);
    } else {
      const U128* wide = static_cast<const U128*>(addresses) + first;
      tables->v6.lookup(wide, m, id);
      if (is_v6 != nullptr) {
        for (size_t i = 0; i < m; ++i) v4[i] = static_cast<uint32_t>(wide[i].lo);
        tables->v4.lookup(v4, m, v4_id);
        for (size_t i = 0; i < m; ++i) id[i] = is_v6[first + i] != 0 ? id[i] : v4_id[i];
      }
    }
    const int64_t* values = tables->value.data();
    for (size_t i = 0; i < m; ++i) __builtin_prefetch(&values[id[i]]);
    for (size_t i = 0; i < m; ++i) out[first + i] = id[i] == 0 ? missing : values[id[i]];
  }
}

}  // namespace meshsieve::prefix
