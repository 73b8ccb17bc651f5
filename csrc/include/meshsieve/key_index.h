// Keys of bytes by number: equal keys have one code, the same in every batch.
//
// What    Open addressing with linear probing over hashes, at most half full; keys lie in one buffer and are compared in
//         full. Codes count up in the order of first appearance.
// Why     Batches of requests are grouped by what leads to an answer; what is worked out for a code once is found again
//         for millions of rows without touching the interpreter.
// Cost    a hash and one or two cache lines a key; memory 16 bytes a key and its bytes
// Limits  2^31 - 1 keys. The hash is seeded at random for each index, so that nobody who chooses keys can make probes
//         long. Forgetting is the caller's: clear() when size() says so.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace meshsieve {

class KeyIndex {
 public:
  static constexpr int32_t kMissing = -1;

  KeyIndex();

  // The code of the key, which is made if it is new.
  int32_t code(std::string_view key);
  // kMissing if the key is not there.
  int32_t find(std::string_view key) const;
  std::string_view key(int32_t code) const {
    const size_t at = static_cast<size_t>(code);
    return std::string_view(bytes_).substr(ends_[at], ends_[at + 1] - ends_[at]);
  }
  int32_t size() const { return static_cast<int32_t>(ends_.size()) - 1; }
  void clear();

 private:
  struct Slot {
    uint32_t tag = 0;  // upper half of the hash
    int32_t code = kMissing;
  };

  // Where the key is, or the free slot where it belongs.
  size_t place(std::string_view key, uint64_t hash) const;
  void grow();

  uint64_t seed_;
  std::string bytes_;
  std::vector<uint64_t> ends_{0};
  std::vector<uint64_t> hashes_;
  std::vector<Slot> slots_;
  size_t mask_ = 0;
};

}  // namespace meshsieve
