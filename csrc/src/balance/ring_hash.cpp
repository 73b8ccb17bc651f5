#include "meshsieve/balance/ring_hash.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <numeric>

#include "meshsieve/balance/hash.h"
#include "meshsieve/errors.h"

namespace meshsieve::balance {

std::shared_ptr<const RingTable> RingTable::build(const std::vector<Share>& shares, uint64_t minimum, uint64_t maximum,
                                                  RingHashFunction function, const Checkpoint& checkpoint) {
  if (maximum > kRingMaxSize || minimum > kRingMaxSize)
    throw BalanceError("a ring may have at most 8388608 entries, not " + std::to_string(std::max(minimum, maximum)));
  if (minimum > maximum)
    throw BalanceError("minimum_ring_size (" + std::to_string(minimum) + ") is above maximum_ring_size (" +
                       std::to_string(maximum) + ")");
  auto table = std::make_shared<RingTable>();
  if (shares.empty()) return table;

  double least = shares.front().weight;
  for (const Share& share : shares) least = std::min(least, share.weight);
  const double scale =
      std::min(std::ceil(least * static_cast<double>(minimum)) / least, static_cast<double>(maximum));

  std::vector<std::pair<uint64_t, int32_t>> ring;
  ring.reserve(static_cast<size_t>(std::ceil(scale)));
  double current = 0.0, target = 0.0;
  std::string text;
  for (const Share& share : shares) {
    target += scale * share.weight;
    text = share.key;
    text += '_';
    const size_t prefix = text.size();
    for (uint64_t i = 0; current < target; ++i, ++current) {
      char digits[20];
      const auto end = std::to_chars(digits, digits + sizeof digits, i).ptr;
      text.resize(prefix);
      text.append(digits, end);
      if (ring.size() % kStepsBetweenChecks == kStepsBetweenChecks - 1) checkpoint();
      ring.emplace_back(function == RingHashFunction::Murmur2 ? murmur2_64a(text) : xxh64(text), share.id);
    }
  }
  std::stable_sort(ring.begin(), ring.end(), [](const auto& a, const auto& b) { return a.first < b.first; });

  table->hashes_.reserve(ring.size());
  table->hosts_.reserve(ring.size());
  for (const auto& [hash, host] : ring) {
    table->hashes_.push_back(hash);
    table->hosts_.push_back(host);
  }
  table->index();
  return table;
}

void RingTable::index() {
  if (hashes_.empty()) return;
  const int bits = std::max(1, static_cast<int>(std::bit_width(hashes_.size())) - 1);
  bucket_shift_ = 64 - bits;
  bucket_begin_.assign((size_t{1} << bits) + 1, 0);
  for (const uint64_t hash : hashes_) ++bucket_begin_[(hash >> bucket_shift_) + 1];
  std::partial_sum(bucket_begin_.begin(), bucket_begin_.end(), bucket_begin_.begin());
}

int32_t RingTable::pick(uint64_t h, uint32_t attempt) const noexcept {
  if (hashes_.empty()) return kNoHost;
  const uint64_t bucket = h >> bucket_shift_;
  const auto begin = hashes_.begin();
  const auto at = std::lower_bound(begin + bucket_begin_[bucket], begin + bucket_begin_[bucket + 1], h);
  size_t entry = static_cast<size_t>(at - begin);
  if (entry == hashes_.size()) entry = 0;
  if (attempt != 0) entry = (entry + attempt) % hashes_.size();
  return hosts_[entry];
}

size_t RingTable::bytes() const noexcept {
  return sizeof *this + hashes_.size() * (sizeof hashes_[0] + sizeof hosts_[0]) +
         bucket_begin_.size() * sizeof bucket_begin_[0];
}

}  // namespace meshsieve::balance
