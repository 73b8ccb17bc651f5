#include "authz/path_templates.h"

#include <algorithm>
#include <array>

#include "meshsieve/errors.h"

namespace meshsieve::authz {
namespace {

constexpr std::array<bool, 256> kTaken = [] {
  std::array<bool, 256> taken{};
  for (int c = 'a'; c <= 'z'; ++c) taken[c] = true;
  for (int c = 'A'; c <= 'Z'; ++c) taken[c] = true;
  for (int c = '0'; c <= '9'; ++c) taken[c] = true;
  for (const char c : std::string_view("-._~%!$&'()+,;:@=*")) taken[static_cast<uint8_t>(c)] = true;
  return taken;
}();

constexpr std::string_view kOne = "{*}", kAny = "{**}";

// Calls each(segment, what follows it, slash included) for the segments of a path that begins with /.
template <class Each>
void segments(std::string_view text, Each each) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('/', at + 1), text.size());
    if (!each(text.substr(at + 1, end - at - 1), text.substr(end))) return;
    at = end;
  }
}

}  // namespace

bool PathTemplates::takes(std::string_view text) {
  bool right = !text.empty() && text[0] == '/', ended = false;
  segments(text, [&](std::string_view segment, std::string_view) {
    if (segment == kOne || segment == kAny) {
      right = right && !ended;
      ended = segment == kAny;
    } else {
      right = right && is_clean(segment);
    }
    return true;
  });
  return right;
}

void PathTemplates::add(const char* arena, std::string_view text, uint32_t id) {
  if (nodes_.empty()) new_node();
  uint32_t node = 0;
  bool ends_here = true;
  segments(text, [&](std::string_view segment, std::string_view following) {
    if (segment == kAny) {
      ends_here = false;
      if (following.empty()) {
        nodes_[node].rest = id;
      } else {
        rests_.push_back({node, {following, id}});
      }
      return false;
    }
    if (segment == kOne) {
      if (nodes_[node].variable == kNone) {
        const uint32_t child = new_node();
        nodes_[node].variable = child;
      }
      node = nodes_[node].variable;
      return true;
    }
    uint32_t child = literal(arena, node, segment);
    if (child == kNone) {
      child = new_node();
      const auto offset = static_cast<uint32_t>(segment.data() - arena);
      edges_.push_back({node, child, offset, static_cast<uint32_t>(segment.size())});
      index_.insert(hash_of(segment, node), static_cast<uint32_t>(edges_.size() - 1), [&](uint32_t e) {
        return hash_of({arena + edges_[e].text, edges_[e].length}, edges_[e].parent);
      });
    }
    node = child;
    return true;
  });
  if (ends_here) nodes_[node].id = id;
}

void PathTemplates::plant(const char* arena, Radix<End::back>& suffixes) {
  std::stable_sort(rests_.begin(), rests_.end(), [](const Rest& a, const Rest& b) { return a.node < b.node; });
  for (size_t i = 0; i < rests_.size();) {
    const uint32_t node = rests_[i].node;
    std::vector<Radix<End::back>::Item> items;
    for (; i < rests_.size() && rests_[i].node == node; ++i) items.push_back(rests_[i].item);
    nodes_[node].rest_suffixes = suffixes.add(arena, items);
  }
  rests_ = {};
  nodes_.shrink_to_fit();
  edges_.shrink_to_fit();
}

bool PathTemplates::is_clean(std::string_view segment) {
  return std::all_of(segment.begin(), segment.end(), [](char c) { return kTaken[static_cast<uint8_t>(c)]; });
}

size_t PathTemplates::after_last_foreign(std::string_view path) {
  for (size_t i = path.size(); i > 0; --i)
    if (path[i - 1] != '/' && !kTaken[static_cast<uint8_t>(path[i - 1])]) return i;
  return 0;
}

uint32_t PathTemplates::literal(const char* arena, uint32_t parent, std::string_view segment) const {
  const uint32_t edge = index_.find(hash_of(segment, parent), [&](uint32_t e) {
    return edges_[e].parent == parent && std::string_view(arena + edges_[e].text, edges_[e].length) == segment;
  });
  return edge == HashIndex::kMissing ? kNone : edges_[edge].child;
}

uint32_t PathTemplates::new_node() {
  if (nodes_.size() >= kNone) throw CompileError("more than 2^32 - 1 nodes in the tree of path templates");
  nodes_.emplace_back();
  return static_cast<uint32_t>(nodes_.size() - 1);
}

}  // namespace meshsieve::authz
