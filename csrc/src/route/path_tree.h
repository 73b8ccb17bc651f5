// Radix trees over the paths of routes, all in one buffer.
//
// What    A node is the text between two places where paths part, with up to three lists: routes whose path ends here
//         (exact), routes that take everything below (prefix), and routes that take this path and what follows a slash
//         (separated). A walk goes down along the request's path and collects the lists that it passes.
// Prune   A node knows the lowest route in and below it, and the lowest prefix route that takes everything without a
//         condition: a walk ends where nothing below can beat what it has passed.
// Layout  | min_route | bound | exact | prefix | separated | label_size | n_children:16 pad:16 | label | keys | pad |
//         children | words of 4 bytes from the beginning of the buffer; keys are sorted bytes, children the nodes'
//         positions in words.
// Cost    One node, mostly one cache line, for each place where paths part; the next is known one step ahead.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "route/lists.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace meshsieve::route {

enum class Place : uint8_t { exact, prefix, separated };
constexpr size_t kPlaces = 3;

struct PathItem {
  std::string text;
  Place place;
  BuildEntry entry;
};

// Lists that a walk has passed; few, nearly always.
class Passed {
 public:
  void clear() { n_ = 0; more_.clear(); }
  void push(uint32_t list) {
    if (n_ < kInline) few_[n_++] = list;
    else more_.push_back(list);
  }
  template <class F>
  void each(F&& f) const {  // the deepest first: what is more special often stands earlier
    for (size_t i = more_.size(); i-- > 0;) f(more_[i]);
    for (size_t i = n_; i-- > 0;) f(few_[i]);
  }

 private:
  static constexpr uint32_t kInline = 16;
  uint32_t few_[kInline];
  uint32_t n_ = 0;
  std::vector<uint32_t> more_;
};

struct PathWalk {
  std::string_view text;
  size_t at = 0;
  uint32_t node = kNone;
  uint32_t bound = kNone;  // routes above it cannot win any more
};

class PathTrees {
 public:
  // The root of a tree of these items (in the order of their routes), kNone for none.
  uint32_t build(std::vector<PathItem> items, Lists& lists);
  // Room behind the last node, so that keys may be read 16 at a time.
  void freeze() { words_.resize(words_.size() + 4); }

  void prefetch(uint32_t node) const {
    __builtin_prefetch(&words_[node]);
    __builtin_prefetch(&words_[node] + 16);
  }
  // Visits walk.node and moves on: false at the end.
  bool step(PathWalk& walk, Passed& passed) const;

  size_t nodes() const { return nodes_; }
  size_t bytes() const { return words_.size() * sizeof(uint32_t); }

 private:
  struct Node {
    uint32_t min_route, bound, list[kPlaces], label_size;
    uint16_t n_children, unused;
  };
  static_assert(sizeof(Node) == 28);

  uint32_t add(std::vector<PathItem>& items, size_t begin, size_t end, size_t depth, Lists& lists);
  static uint32_t child(const Node& node, const uint8_t* keys, uint8_t key);

  std::vector<uint32_t> words_;
  size_t nodes_ = 0;
};

inline uint32_t PathTrees::child(const Node& node, const uint8_t* keys, uint8_t key) {
  const uint32_t n = node.n_children;
  uint32_t i = 0;
#if defined(__SSE2__)
  const __m128i wanted = _mm_set1_epi8(static_cast<char>(key));
  for (; i < n; i += 16) {
    const __m128i some = _mm_loadu_si128(reinterpret_cast<const __m128i*>(keys + i));
    const uint32_t hits = static_cast<uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(some, wanted)));
    if (hits == 0) continue;
    i += static_cast<uint32_t>(__builtin_ctz(hits));
    break;
  }
#else
  while (i < n && keys[i] != key) ++i;
#endif
  if (i >= n) return kNone;
  uint32_t out;
  std::memcpy(&out, keys + ((n + node.label_size + 3) & ~3u) - node.label_size + size_t{4} * i, sizeof out);
  return out;
}

inline bool PathTrees::step(PathWalk& walk, Passed& passed) const {
  Node node;
  const uint32_t* here = &words_[walk.node];
  std::memcpy(&node, here, sizeof node);
  if (node.min_route > walk.bound) return false;
  const std::string_view rest = walk.text.substr(walk.at);
  const char* label = reinterpret_cast<const char*>(here) + sizeof node;
  if (rest.size() < node.label_size || std::memcmp(rest.data(), label, node.label_size) != 0) return false;
  walk.at += node.label_size;
  const bool ends = walk.at == walk.text.size();
  if (node.list[1] != kNone) {
    passed.push(node.list[1]);
    if (node.bound < walk.bound) walk.bound = node.bound;
  }
  if (node.list[2] != kNone && (ends || walk.text[walk.at] == '/')) passed.push(node.list[2]);
  if (node.list[0] != kNone && ends) passed.push(node.list[0]);
  if (ends || node.n_children == 0) return false;
  const uint8_t* keys = reinterpret_cast<const uint8_t*>(label) + node.label_size;
  walk.node = child(node, keys, static_cast<uint8_t>(walk.text[walk.at]));
  return walk.node != kNone;
}

}  // namespace meshsieve::route
