// HPACK: header compression of HTTP/2 (RFC 7541), the decoding side.
//
// What    decode() turns one header block into header lines and keeps the dynamic table for the blocks that follow. One
//         decoder serves one direction of a connection.
// Limits  A bomb is a small block that unfolds into a large list by references to the dynamic table. Beyond
//         `max_list_bytes` (as SETTINGS_MAX_HEADER_LIST_SIZE counts: name + value + 32) lines are no longer kept, but the
//         block is read on, because the dynamic table depends on every line. The table holds kMaxHpackTable bytes at most.
// Partial A connection whose beginning was not captured, or that has a hole, lacks entries of the table. After
//         forget_history() a reference to an unknown entry is a missing line, not an error; entries that came later are
//         found, since indices count from the newest one.
// Cost    Linear in the block: a name that is referred to is shared, a value is copied only into lines that are kept.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace meshsieve {

using HeaderLines = std::vector<std::pair<std::string, std::string>>;

inline constexpr uint32_t kMaxHpackTable = 64 << 10;

class HpackDecoder {
 public:
  // What the receiver of this direction announced as SETTINGS_HEADER_TABLE_SIZE. The sender may enlarge its table to it.
  void allow_table(uint32_t bytes) { allowed_ = bytes > allowed_ ? bytes : allowed_; }
  void forget_history();

  struct Outcome {
    bool ok = true;          // false: not HPACK; the connection cannot be read on
    bool missing = false;    // lines refer to entries that were not captured
    bool too_large = false;  // lines beyond the limit were left out
  };
  Outcome decode(std::span<const uint8_t> block, size_t max_list_bytes, HeaderLines& out);

  size_t bytes() const { return table_bytes_ + table_.size() * sizeof(Entry); }

 private:
  struct Entry {
    std::shared_ptr<const std::string> name;  // null: a name that was not captured
    std::string value;
    uint32_t size() const;
  };
  // A line that is referred to; the views last until the table changes.
  struct Line {
    std::string_view name, value;
    const Entry* entry = nullptr;  // null: of the static table
  };
  enum class Found : uint8_t { yes, missing, no };
  Found find(uint64_t index, Line& line) const;
  void insert(Entry&& entry);
  void shrink_to(uint32_t bytes);

  std::deque<Entry> table_;  // the newest one first
  uint32_t table_bytes_ = 0;
  uint32_t limit_ = 4096;    // the sender's present limit
  uint32_t allowed_ = 4096;
  bool partial_ = false;
};

// Appends the text of a Huffman-coded string (RFC 7541, section 5.2); false if it is none.
bool huffman_decode(std::span<const uint8_t> coded, std::string& out);

}  // namespace meshsieve
