// Texts by number, each once.
//
// What    number(text) gives equal texts one number, in the order in which they come: 0, 1, 2, ...
// Why     Flows repeat names, versions and fingerprints; a column of numbers is small, and what is made of a text is made once.
// How     All texts in one array; open addressing over 8-byte entries, at most half full. No allocation a text.
// Safety  The hash is keyed at random for each process, because the texts come out of captures.
// Limits  2^31 - 1 texts; number() throws std::length_error beyond.
// Example number("a") == 0, number("b") == 1, number("a") == 0, pool[1] == "b".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace meshsieve {

class TextPool {
 public:
  int32_t number(std::string_view text);
  size_t size() const { return ends_.size(); }
  // Valid until the next text comes.
  std::string_view operator[](size_t number) const {
    const size_t begin = number == 0 ? 0 : ends_[number - 1];
    return std::string_view(bytes_).substr(begin, ends_[number] - begin);
  }
  void clear();  // the memory stays

 private:
  struct Entry {
    uint32_t hash;
    int32_t number;
  };
  static constexpr int32_t kFree = -1;

  void grow();

  std::string bytes_;
  std::vector<size_t> ends_;
  std::vector<Entry> entries_;  // a power of two, or none
};

}  // namespace meshsieve
