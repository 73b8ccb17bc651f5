#include "route/path_tree.h"

#include <algorithm>

#include "meshsieve/errors.h"

namespace meshsieve::route {

uint32_t PathTrees::build(std::vector<PathItem> items, Lists& lists) {
  if (items.empty()) return kNone;
  std::stable_sort(items.begin(), items.end(), [](const PathItem& a, const PathItem& b) { return a.text < b.text; });
  return add(items, 0, items.size(), 0, lists);
}

// The node of items [begin, end), sorted and alike in their first `depth` bytes.
uint32_t PathTrees::add(std::vector<PathItem>& items, size_t begin, size_t end, size_t depth, Lists& lists) {
  const std::string& first = items[begin].text;
  const std::string& last = items[end - 1].text;
  const size_t limit = std::min(first.size(), last.size());
  size_t common = depth;
  while (common < limit && first[common] == last[common]) ++common;

  Node node{};
  node.min_route = node.bound = kNone;
  node.label_size = static_cast<uint32_t>(common - depth);
  std::vector<BuildEntry> here[kPlaces];
  size_t at = begin;
  for (; at < end && items[at].text.size() == common; ++at)
    here[static_cast<size_t>(items[at].place)].push_back(std::move(items[at].entry));
  for (size_t place = 0; place < kPlaces; ++place) {
    const Lists::Made made = lists.make(std::move(here[place]));
    node.list[place] = made.list;
    node.min_route = std::min(node.min_route, made.first);
    if (place == static_cast<size_t>(Place::prefix)) node.bound = made.bound;
  }

  std::vector<std::pair<uint8_t, std::pair<size_t, size_t>>> parts;
  while (at < end) {
    const uint8_t key = static_cast<uint8_t>(items[at].text[common]);
    const size_t from = at;
    while (at < end && static_cast<uint8_t>(items[at].text[common]) == key) ++at;
    parts.push_back({key, {from, at}});
  }
  node.n_children = static_cast<uint16_t>(parts.size());

  const size_t position = words_.size();
  const size_t text_words = (node.label_size + parts.size() + 3) / 4;
  const size_t size = sizeof(Node) / 4 + text_words + parts.size();
  if (position + size >= kNone || common >= kNone) throw CompileError("the paths of a route table exceed 16 GiB");
  words_.resize(position + size);
  char* text = reinterpret_cast<char*>(&words_[position]) + sizeof(Node);
  std::memcpy(text, first.data() + depth, node.label_size);
  for (size_t i = 0; i < parts.size(); ++i) text[node.label_size + i] = static_cast<char>(parts[i].first);
  ++nodes_;
  for (size_t i = 0; i < parts.size(); ++i) {
    const uint32_t made = add(items, parts[i].second.first, parts[i].second.second, common, lists);
    words_[position + sizeof(Node) / 4 + text_words + i] = made;
    node.min_route = std::min(node.min_route, words_[made]);
  }
  std::memcpy(&words_[position], &node, sizeof node);
  return static_cast<uint32_t>(position);
}

}  // namespace meshsieve::route
