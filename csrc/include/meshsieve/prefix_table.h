// Longest-prefix match over IPv4 and IPv6 prefixes with values.
//
// What    The prefixes are flattened into disjoint intervals, each with the value of its longest prefix, and searched by
//         the class front end's maps (l4/classes_table.h): two table reads and one cache line a level for IPv4.
// Why     Look-ups outnumber changes by far, and a batch overlaps 64 of them; tries of single bits or bytes chase one
//         pointer a bit or byte.
// Updates What was never changed since its first look-up is searched as above; the first change after that puts the
//         prefixes into tries that are changed in place (prefix/changing_prefixes.h). All changes of one apply() become
//         visible together; a look-up, or a batch, answers wholly from one state.
// Threads Any number may look up and change at once; look-ups take no lock, but for the first one of a thread.
// Cost    Before the first look-up a change is an ordered map operation, and that look-up flattens the prefixes, about
//         0.5 us each. The first change after it builds the tries, as much again; later ones take less than a microsecond.
//         Memory: about 100 bytes a prefix, of which the searched part is 10 to 70; 200 and 4 MB once it changes.
// Limits  2^30 distinct values.
// Source  Binary search on intervals: Lampson, Srinivasan, Varghese, IP lookups using multiway search, INFOCOM 1998.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "meshsieve/types.h"

namespace meshsieve {

namespace saved {
class Reader;
class Writer;
}  // namespace saved
namespace prefix {
class ChangingPrefixes;
}
namespace simd {
struct Backend;
}

class PrefixTable {
 public:
  // `backend`: "auto" or a name of simd::backends(). Throws BackendError.
  explicit PrefixTable(const std::string& backend);
  ~PrefixTable();

  // Prefixes and searched tables. A loaded table is searched where it lies; its list of prefixes is made at the first
  // change. load throws TableError for what cannot be.
  void save(saved::Writer& writer) const;
  static std::shared_ptr<PrefixTable> load(saved::Reader& reader, const std::string& backend);

  struct Prefix {
    bool is_v6;
    U128 address;  // host bits are 0
    int bits;
    friend auto operator<=>(const Prefix&, const Prefix&) = default;
  };
  struct Change {
    Prefix prefix;
    std::optional<int64_t> value;  // empty: remove
  };

  // All changes become visible together. Returns false, and changes nothing, if one removes a prefix that is not there.
  bool apply(std::span<const Change> changes);
  void put(const Prefix& prefix, int64_t value) {
    const Change change{prefix, value};
    apply({&change, 1});
  }
  bool drop(const Prefix& prefix) {
    const Change change{prefix, std::nullopt};
    return apply({&change, 1});
  }
  std::optional<int64_t> exact(const Prefix& prefix) const;
  std::vector<std::pair<Prefix, int64_t>> items() const;
  size_t size() const;
  size_t bytes() const;  // of the searched tables

  // What a caller keeps between look-ups so that they are quick: the state that served the last one. Not for two threads
  // at a time.
  class Held;
  int64_t lookup(Held& held, uint32_t ipv4, int64_t missing) const;
  int64_t lookup(Held& held, U128 ipv6, int64_t missing) const;
  // Of any thread, which has a Held of its own.
  int64_t lookup(uint32_t ipv4, int64_t missing) const;
  int64_t lookup(U128 ipv6, int64_t missing) const;
  // n addresses, `width` bytes each (4: IPv4; 16: U128), is_v6[i] != 0 says the family where width is 16; nullptr: all
  // IPv6. out: n values.
  void lookup_batch(const void* addresses, uint32_t width, const uint8_t* is_v6, size_t n, int64_t missing,
                    int64_t* out) const;

 private:
  struct Snapshot;
  struct Packed;

  const Snapshot& snapshot(Held& held) const;
  static Held& held_by_thread();
  std::shared_ptr<const Snapshot> build() const;
  std::vector<std::pair<Prefix, int64_t>> all() const;  // under mutex_
  void publish(std::shared_ptr<const Snapshot> snapshot) const;
  void unpack() const;

  const simd::Backend* backend_;
  mutable std::mutex mutex_;
  mutable std::map<Prefix, int64_t> prefixes_;  // guarded by mutex_; by family, address, then from short to long
  mutable std::shared_ptr<const Packed> packed_;  // guarded by mutex_; of a loaded table, instead of prefixes_
  mutable std::shared_ptr<const Snapshot> snapshot_;  // guarded by mutex_; null: changed since
  mutable std::atomic<uint64_t> version_ = 0;         // of snapshot_; 0 while that is null
  std::unique_ptr<prefix::ChangingPrefixes> changing_;  // changed under mutex_; instead of all the above once it exists
  std::atomic<const prefix::ChangingPrefixes*> serving_ = nullptr;  // changing_, for look-ups
};

class PrefixTable::Held {
  friend class PrefixTable;
  uint64_t version = 0;  // of `tables`; no state of any table has number 0
  std::shared_ptr<const Snapshot> tables;
};

}  // namespace meshsieve
