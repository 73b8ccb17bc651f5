// A forest as it was loaded: every child and leaf inside, every walk forward and short.
#include <algorithm>

#include "l4/forest_table.h"
#include "saved/archive.h"

namespace meshsieve::forest {
namespace {

using saved::require;

const BlockTail& tail_of(const View& view, size_t block) {
  return *reinterpret_cast<const BlockTail*>(view.blocks + block * view.block_bytes + view.tail_offset);
}

constexpr uint32_t kMostDepth = kMaxDims * 32;  // every inner node consumes a bit of some dimension
constexpr uint32_t kNoParent = ~uint32_t{0};

// Nodes that are alike have the same children; else children are nobody else's. That is how forests are built, and it
// keeps this check linear: 65,536 children a node, shared by all, would be a thousand times as much work as file.
void check_nodes(const View& view, std::span<const Node> nodes, size_t n_blocks) {
  const size_t dims = size_t{view.n32} + view.n16 + view.n8;
  std::vector<uint32_t> siblings(nodes.size(), kNoParent);  // the first of the children that a node is one of
  std::vector<uint16_t> depth(nodes.size(), 0);             // of the children that begin here; parents come earlier
  for (size_t i = 0; i < nodes.size(); ++i) {
    const Node node = nodes[i];
    if (node.mask == 0) {
      require(node.first < n_blocks && node.dim <= 1, "a leaf that is not there");
      const int32_t first_rule = tail_of(view, node.first).rule[0];
      require(first_rule >= 0 && node.shift <= bound_of(first_rule, view.bound_shift), "a leaf that begins earlier");
      continue;
    }
    require(node.shift < 32 && node.dim < dims, "a window of a field that is not there");
    const uint64_t last = node.first + uint64_t{node.mask};
    require(node.first > i && last < nodes.size(), "a child that does not come later");
    if (siblings[node.first] == kNoParent)
      for (uint64_t c = node.first; c <= last; ++c) {
        require(siblings[c] == kNoParent, "a child of two parents");
        siblings[c] = node.first;
      }
    require(siblings[node.first] == node.first && siblings[last] == node.first &&
                (last + 1 == nodes.size() || siblings[last + 1] != node.first),
            "a child of two parents");
    const uint32_t own = siblings[i] == kNoParent ? 0 : depth[siblings[i]];
    require(own < kMostDepth, "a tree that is too deep");
    depth[node.first] = std::max<uint16_t>(depth[node.first], static_cast<uint16_t>(own + 1));
  }
}

void check_blocks(const View& view, size_t n_blocks, int32_t begin, int32_t end) {
  for (size_t b = 0; b < n_blocks; ++b) {
    const BlockTail& tail = tail_of(view, b);
    for (int lane = 0; lane < kLanes; ++lane)
      require((tail.valid >> lane & 1) == 0 || (tail.rule[lane] >= begin && tail.rule[lane] < end),
              "a rule that is not there");
    require(b + 1 < n_blocks || tail.last != 0, "a leaf that does not end");
  }
}

}  // namespace

void check_boxes(const Boxes& boxes) {
  require(boxes.dims() == size_t{boxes.n32} + boxes.n16 + boxes.n8 && boxes.dims() <= kMaxDims, "too many dimensions");
  for (const Field field : boxes.field) require(index_of(field) < kFieldCount, "a field that is none");
  for (const RankMap& ranks : boxes.ranks)
    require(ranks.starts.empty() || (ranks.starts[0] == U128{} && std::is_sorted(ranks.starts.begin(), ranks.starts.end())),
            "address ranks out of order");
}

void check_trees(const View& view, std::span<const Node> nodes, size_t block_array_bytes, int32_t begin, int32_t end) {
  const size_t n_blocks = block_array_bytes / view.block_bytes;
  require(n_blocks != 0 && block_array_bytes % view.block_bytes == 0, "blocks of another size");
  require(view.n_trees <= kMaxTrees, "too many trees");
  for (int t = 0; t < view.n_trees; ++t) require(view.root[t] < nodes.size(), "a root that is not there");
  require(view.bound_shift <= kMostBoundShift, "bounds of leaves that no rule has");
  check_nodes(view, nodes, n_blocks);
  check_blocks(view, n_blocks, begin, end);
}

}  // namespace meshsieve::forest
