// Readers and writers of one PrefixTable: the second half of `make race`.
//
// Networks of both families have values of one state or of the other, and all change in one update. While they do, two
// more specific prefixes come and go. Readers look up batches and single addresses from before the first change on.
// Every batch must be wholly of one state.
#include "prefix_race.h"

#include <array>
#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

#include "meshsieve/prefix_table.h"

using namespace meshsieve;

namespace {

constexpr int kReaders = 4;
constexpr uint32_t kNetworks = 64;
constexpr int64_t kState = 1000;   // between the values of the two states
constexpr int64_t kSpecific = 50;  // what a more specific prefix adds
constexpr int64_t kMissing = -1;

PrefixTable::Prefix network(uint32_t i, bool is_v6, bool specific) {
  if (is_v6) return {true, {0x20010db800000000 | uint64_t{i} << 16, 0}, specific ? 60 : 48};
  return {false, {0, 10u << 24 | i << 8}, specific ? 28 : 24};
}

std::vector<PrefixTable::Change> state(int64_t base, bool specific) {
  std::vector<PrefixTable::Change> changes;
  for (const bool is_v6 : {false, true}) {
    for (uint32_t i = 0; i < kNetworks; ++i) changes.push_back({network(i, is_v6, false), base + i});
    for (const uint32_t i : {3u, 40u}) {
      if (specific) changes.push_back({network(i, is_v6, true), base + i + kSpecific});
      else if (base != 0) changes.push_back({network(i, is_v6, true), std::nullopt});
    }
  }
  return changes;
}

// Value i is that of network i in the state of the first one.
bool is_wholly(const std::array<int64_t, kNetworks>& values) {
  const int64_t base = values[0];
  if (base != 0 && base != kState && base != 2 * kState) return false;
  for (uint32_t i = 0; i < kNetworks; ++i) {
    const bool specific = base == kState && (i == 3 || i == 40);
    if (values[i] != base + i + (specific ? kSpecific : 0)) return false;
  }
  return true;
}

}  // namespace

bool prefixes_are_never_mixed(int swaps) {
  PrefixTable table("auto");
  table.apply(state(0, false));
  std::array<uint32_t, kNetworks> v4;
  std::array<U128, kNetworks> v6;
  for (uint32_t i = 0; i < kNetworks; ++i) {
    v4[i] = static_cast<uint32_t>(network(i, false, true).address.lo) + 5;
    v6[i] = {network(i, true, true).address.hi, 7};
  }
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> mixed = 0, batches = 0;
  const auto read = [&] {
    std::array<int64_t, kNetworks> values;
    while (!stop) {
      table.lookup_batch(v4.data(), 4, nullptr, kNetworks, kMissing, values.data());
      mixed += !is_wholly(values);
      table.lookup_batch(v6.data(), 16, nullptr, kNetworks, kMissing, values.data());
      mixed += !is_wholly(values);
      mixed += table.lookup(v4[1], kMissing) % kState != 1 || table.lookup(v6[2], kMissing) % kState != 2;
      ++batches;
    }
  };
  std::vector<std::thread> readers;
  for (int i = 0; i < kReaders; ++i) readers.emplace_back(read);
  while (batches < kReaders) std::this_thread::yield();  // the table is searched before it changes
  for (int i = 0; i < swaps; ++i) {
    table.apply(state(kState, true));
    table.apply(state(2 * kState, false));
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  std::printf("%d changes of prefixes, %llu rounds in %d readers, %llu mixed\n", 2 * swaps,
              (unsigned long long)batches, kReaders, (unsigned long long)mixed);
  return mixed == 0;
}
