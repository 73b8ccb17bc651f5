#include "authz/radix.h"

#include <algorithm>
#include <limits>

#include "meshsieve/errors.h"

namespace meshsieve::authz {
namespace {

constexpr size_t kMaxLabel = std::numeric_limits<uint16_t>::max();

// The byte that is `i` away from the end where the tree begins.
template <End kEnd>
uint8_t byte_at(std::string_view text, size_t i) {
  return static_cast<uint8_t>(kEnd == End::front ? text[i] : text[text.size() - 1 - i]);
}

template <End kEnd>
bool before(std::string_view a, std::string_view b) {
  if constexpr (kEnd == End::front) return a < b;
  return std::lexicographical_compare(a.rbegin(), a.rend(), b.rbegin(), b.rend(), [](char x, char y) {
    return static_cast<uint8_t>(x) < static_cast<uint8_t>(y);
  });
}

template <End kEnd>
size_t common(std::string_view a, std::string_view b, size_t from) {
  const size_t end = std::min(a.size(), b.size());
  while (from < end && byte_at<kEnd>(a, from) == byte_at<kEnd>(b, from)) ++from;
  return from;
}

}  // namespace

template <End kEnd>
uint32_t Radix<kEnd>::add(const char* arena, std::vector<Item>& items) {
  if (items.empty()) return kNone;
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return before<kEnd>(a.text, b.text); });
  struct Open {
    uint32_t node;
    size_t begin, end, depth;  // items that share `depth` bytes, all of them on the way to the node
  };
  const auto root = static_cast<uint32_t>(nodes_.size());
  nodes_.push_back({0, kNone, 0, 0, 0});
  first_.push_back(0);
  std::vector<Open> open = {{root, 0, items.size(), 0}};
  for (size_t next = 0; next < open.size(); ++next) {
    auto [node, begin, end, depth] = open[next];
    if (items[begin].text.size() == depth) nodes_[node].id = items[begin++].id;
    nodes_[node].child = static_cast<uint32_t>(nodes_.size());
    while (begin < end) {
      const std::string_view text = items[begin].text;
      const uint8_t byte = byte_at<kEnd>(text, depth);
      size_t last = begin + 1;
      while (last < end && byte_at<kEnd>(items[last].text, depth) == byte) ++last;
      const size_t reach = std::min(common<kEnd>(text, items[last - 1].text, depth), depth + kMaxLabel);
      if (nodes_.size() >= kNone) throw CompileError("more than 2^32 - 1 nodes in a radix tree");
      const char* label = kEnd == End::front ? text.data() + depth : text.data() + (text.size() - reach);
      open.push_back({static_cast<uint32_t>(nodes_.size()), begin, last, reach});
      nodes_.push_back({static_cast<uint32_t>(label - arena), kNone, 0, static_cast<uint16_t>(reach - depth), 0});
      first_.push_back(byte);
      ++nodes_[node].n_children;
      begin = last;
    }
  }
  return root;
}

template class Radix<End::front>;
template class Radix<End::back>;

}  // namespace meshsieve::authz
