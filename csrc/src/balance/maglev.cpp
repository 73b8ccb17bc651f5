#include "meshsieve/balance/maglev.h"

#include <algorithm>
#include <numeric>

#include "meshsieve/balance/hash.h"
#include "meshsieve/errors.h"

namespace meshsieve::balance {
namespace {

constexpr uint32_t kFree = ~uint32_t{0};

template <class Id>
class Table final : public MaglevTable {
 public:
  Table(const std::vector<uint32_t>& slots) : slots_(slots.begin(), slots.end()), size_(slots.size()) {}

  int32_t pick(uint64_t h, uint32_t attempt) const noexcept override { return slots_[size_.of(mixed(h, attempt))]; }

  void pick_batch(const uint64_t* h, size_t n, uint32_t attempt, int32_t* out) const noexcept override {
    const Id* slots = slots_.data();
    const Modulus size = size_;
    for (size_t i = 0; i < n; ++i) out[i] = slots[size.of(mixed(h[i], attempt))];
  }

  std::vector<int32_t> slots() const override { return {slots_.begin(), slots_.end()}; }
  size_t bytes() const noexcept override { return sizeof *this + slots_.size() * sizeof(Id); }

 private:
  // Envoy writes ~0 - attempt + 1, which is -attempt in 64 bits: every retry lands in another slot.
  static uint64_t mixed(uint64_t h, uint32_t attempt) noexcept { return h ^ (uint64_t{0} - attempt); }

  std::vector<Id> slots_;
  Modulus size_;
};

class NoHosts final : public MaglevTable {
 public:
  int32_t pick(uint64_t, uint32_t) const noexcept override { return kNoHost; }
  std::vector<int32_t> slots() const override { return {}; }
  size_t bytes() const noexcept override { return sizeof *this; }
};

std::shared_ptr<const MaglevTable> table_of(const std::vector<uint32_t>& slots) {
  if (*std::max_element(slots.begin(), slots.end()) <= 0xffff) return std::make_shared<Table<uint16_t>>(slots);
  return std::make_shared<Table<uint32_t>>(slots);
}

bool is_prime(uint32_t n) {
  if (n < 2) return false;
  for (uint64_t d = 2; d * d <= n; ++d)
    if (n % d == 0) return false;
  return true;
}

void check_size(uint32_t table_size) {
  if (table_size > kMaglevMaxSize)
    throw BalanceError("the table size of Maglev must be at most 5000011, not " + std::to_string(table_size));
  if (!is_prime(table_size))
    throw BalanceError("the table size of Maglev must be a prime number, not " + std::to_string(table_size));
}

// A host's way through the slots.
class Walk {
 public:
  Walk(uint64_t offset_hash, uint64_t skip_hash, uint32_t size)
      : at_(static_cast<uint32_t>(offset_hash % size)),
        skip_(static_cast<uint32_t>(size > 1 ? skip_hash % (size - 1) + 1 : 0)) {}

  // Owner takes the next slot of the walk that nobody has; there must be one.
  void take(std::vector<uint32_t>& slots, uint32_t owner) {
    const auto size = static_cast<uint32_t>(slots.size());
    while (slots[at_] != kFree) step(size);
    slots[at_] = owner;
    step(size);
  }

 private:
  void step(uint32_t size) {
    at_ += skip_;
    if (at_ >= size) at_ -= size;
  }

  uint32_t at_;
  uint32_t skip_;
};

}  // namespace

std::shared_ptr<const MaglevTable> build_maglev(const std::vector<Share>& shares, uint32_t table_size,
                                                const Checkpoint& checkpoint) {
  check_size(table_size);
  if (shares.empty()) return std::make_shared<NoHosts>();

  std::vector<uint32_t> order(shares.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return shares[a].key < shares[b].key; });

  struct Turn {
    Walk walk;
    double weight;
    double target;  // the host takes its next slot in the first round k with k * weight >= target
    uint32_t id;
  };
  std::vector<Turn> turns;
  turns.reserve(order.size());
  double most = 0;
  for (const uint32_t i : order) {
    const Share& share = shares[i];
    turns.push_back({Walk(xxh64(share.key, 0), xxh64(share.key, 1), table_size), share.weight, 0.0,
                     static_cast<uint32_t>(share.id)});
    most = std::max(most, share.weight);
  }

  std::vector<uint32_t> slots(table_size, kFree);
  uint32_t filled = 0;
  for (uint32_t round = 1; filled < table_size; ++round) {
    for (Turn& turn : turns) {
      if (filled == table_size) break;
      if (round * turn.weight < turn.target) continue;
      turn.target += most;
      turn.walk.take(slots, turn.id);
      if (++filled % kStepsBetweenChecks == 0) checkpoint();
    }
  }
  return table_of(slots);
}

std::shared_ptr<const MaglevTable> build_katran(const std::vector<KatranEndpoint>& endpoints, uint32_t table_size,
                                                const Checkpoint& checkpoint) {
  check_size(table_size);
  if (endpoints.empty()) return std::make_shared<NoHosts>();
  std::vector<Walk> walks;
  walks.reserve(endpoints.size());
  for (const KatranEndpoint& endpoint : endpoints)
    walks.emplace_back(murmur3_pair(endpoint.hash, 42, 0), murmur3_pair(endpoint.hash, 2718281828, 2307), table_size);

  std::vector<uint32_t> slots(table_size, kFree);
  uint32_t filled = 0;
  for (bool first_round = true; filled < table_size; first_round = false) {
    for (uint32_t e = 0; e < endpoints.size(); ++e) {
      const uint32_t turns = first_round ? endpoints[e].weight : 1;
      for (uint32_t t = 0; t < turns && filled < table_size; ++t) {
        walks[e].take(slots, e);
        if (++filled % kStepsBetweenChecks == 0) checkpoint();
      }
    }
  }
  return table_of(slots);
}

}  // namespace meshsieve::balance
