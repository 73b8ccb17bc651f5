// Path templates of AuthorizationPolicy, all of them in one walk over the segments of a path.
//
// What    A tree of segments with a child a literal (hashed) and one for {*}. {**} ends the way down: what may follow it is
//         literal, so the ways on from there are suffixes, in a radix tree of their own.
// Why     Envoy runs one regular expression a template.
// Cost    One hash a segment and live node; nodes are live side by side only where policies name both a literal and {*}
//         at one place. The text is read three times at most.
// Limits  2^32 - 1 nodes. Operators take [A-Za-z0-9-._~%!$&'()+,;:@=*] alone, as Envoy's do.
// Example {/a/{*}, /a/b/{**}/z}: /a/b takes the first; /a/b/c/z the second; /a/b/z neither.
// Source  Envoy's uri_template_internal.cc; Istio's authorization_policy.proto.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "authz/hash_index.h"
#include "authz/radix.h"

namespace meshsieve::authz {

class PathTemplates {
 public:
  // Whether the tree can hold it: literals of allowed characters, operators alone in their segments, {**} last.
  static bool takes(std::string_view text);

  // `text` is a part of the arena and passes `takes`.
  void add(const char* arena, std::string_view text, uint32_t id);

  struct Scratch {
    std::vector<uint32_t> now, next;
  };
  template <class Found>
  void walk(const char* arena, const Radix<End::back>& suffixes, std::string_view path, Scratch& scratch,
            Found found) const {
    if (nodes_.empty() || path.empty() || path[0] != '/') return;
    const size_t clean_from = after_last_foreign(path);
    scratch.now.assign(1, 0);
    for (size_t at = 0; at < path.size() && !scratch.now.empty();) {
      const size_t begin = at + 1;
      const size_t slash = path.find('/', begin);
      const size_t end = slash == std::string_view::npos ? path.size() : slash;
      const std::string_view segment = path.substr(begin, end - begin);
      const bool is_variable = !segment.empty() && (clean_from <= begin || is_clean(segment));
      scratch.next.clear();
      for (const uint32_t n : scratch.now) {
        const Node& node = nodes_[n];
        if (clean_from <= begin) {
          if (node.rest != kNone) found(node.rest);
          suffixes.walk(node.rest_suffixes, arena, path.substr(begin), [&](uint32_t id, size_t) { found(id); });
        }
        if (const uint32_t child = literal(arena, n, segment); child != kNone) scratch.next.push_back(child);
        if (is_variable && node.variable != kNone) scratch.next.push_back(node.variable);
      }
      std::swap(scratch.now, scratch.next);
      at = end;
    }
    for (const uint32_t n : scratch.now)
      if (nodes_[n].id != kNone) found(nodes_[n].id);
  }

  // Suffixes behind {**} go into the caller's trees of suffixes; called once, after all templates were added.
  void plant(const char* arena, Radix<End::back>& suffixes);

  size_t bytes() const { return nodes_.capacity() * sizeof(Node) + edges_.capacity() * sizeof(Edge) + index_.bytes(); }

 private:
  struct Node {
    uint32_t id = kNone;             // template that ends here
    uint32_t variable = kNone;       // child for {*}
    uint32_t rest = kNone;           // template that ends in {**} here
    uint32_t rest_suffixes = kNone;  // tree of what follows {**} here
  };
  struct Edge {
    uint32_t parent, child, text, length;
  };
  struct Rest {
    uint32_t node;
    Radix<End::back>::Item item;
  };

  static bool is_clean(std::string_view segment);
  // Behind the last byte that no operator takes; 0 if all are taken.
  static size_t after_last_foreign(std::string_view path);
  uint32_t literal(const char* arena, uint32_t parent, std::string_view segment) const;
  uint32_t new_node();

  std::vector<Node> nodes_;
  std::vector<Edge> edges_;
  HashIndex index_;  // of edges
  std::vector<Rest> rests_;
};

}  // namespace meshsieve::authz
