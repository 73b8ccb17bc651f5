// Literals that are prefixes (or suffixes) of a text, all of them in one walk down a radix tree.
//
// What    Nodes of one tree lie in one array, the children of a node side by side, with their first bytes in an array of
//         their own: the next child is one memchr away. Labels are not stored: they are parts of the literals' own text.
//         Several trees share the arrays; a tree is known by its root.
// Why     A value matches few of many literals; a hash of every length would cost one probe a length.
// Cost    A walk: one node a branching on the way, at most the longest literal's bytes compared. Memory: 17 bytes a node,
//         at most two nodes a literal.
// Limits  2^32 - 1 nodes; labels beyond 65,535 bytes are cut into several nodes.
// Example {/a, /api, /app}: root -"/a"-> literal 0 -"p"-> -"i"-> literal 1, -"p"-> literal 2.
// Source  Morrison, PATRICIA, JACM 1968.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace meshsieve::authz {

constexpr uint32_t kNone = 0xffffffffu;

enum class End : uint8_t { front, back };

template <End kEnd>
class Radix {
 public:
  // `text` is a part of the arena that all calls name; equal texts have one id.
  struct Item {
    std::string_view text;
    uint32_t id;
  };

  using Items = std::vector<Item>;

  // The root of a new tree. `items` is sorted on the way. Throws CompileError beyond the limits.
  uint32_t add(const char* arena, std::vector<Item>& items);

  // Calls found(id, length) for every literal of the tree that `text` begins (ends) with, from short to long.
  template <class Found>
  void walk(uint32_t root, const char* arena, std::string_view text, Found found) const {
    if (root == kNone) return;
    const Node* node = &nodes_[root];
    size_t depth = 0;
    for (;;) {
      if (node->id != kNone) found(node->id, depth);
      if (node->n_children == 0 || depth == text.size()) return;
      const char next = kEnd == End::front ? text[depth] : text[text.size() - 1 - depth];
      const uint8_t* first = first_.data() + node->child;
      const void* hit = std::memchr(first, static_cast<uint8_t>(next), node->n_children);
      if (hit == nullptr) return;
      node = &nodes_[node->child + static_cast<size_t>(static_cast<const uint8_t*>(hit) - first)];
      const size_t length = node->length;
      if (text.size() - depth < length) return;
      const char* at = kEnd == End::front ? text.data() + depth : text.data() + (text.size() - depth - length);
      if (std::memcmp(at, arena + node->label, length) != 0) return;
      depth += length;
    }
  }

  size_t bytes() const { return nodes_.capacity() * sizeof(Node) + first_.capacity(); }
  void shrink() {
    nodes_.shrink_to_fit();
    first_.shrink_to_fit();
  }

 private:
  struct Node {
    uint32_t label;  // where the label begins in the arena
    uint32_t id;     // of the literal that ends here, or kNone
    uint32_t child;  // first of n_children
    uint16_t length;
    uint16_t n_children;
  };
  static_assert(sizeof(Node) == 16, "four nodes a cache line");

  std::vector<Node> nodes_;
  std::vector<uint8_t> first_;  // by node: first byte of its label
};

extern template class Radix<End::front>;
extern template class Radix<End::back>;

}  // namespace meshsieve::authz
