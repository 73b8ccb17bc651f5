#include "l4/forest_lookup.h"

#include <algorithm>
#include <cstring>

namespace meshsieve::forest {
namespace {

// A value that is no IPv4 address, and so in no set: the tables hold only 32 bits.
bool beyond_v4(U128 address) { return address.hi != 0 || address.lo > 0xffffffffu; }

template <class T>
void widen_from(const uint8_t* data, size_t n, uint32_t* value) {
  for (size_t i = 0; i < n; ++i) {
    T v;
    std::memcpy(&v, data + i * sizeof(T), sizeof(T));
    value[i] = v;
  }
}
void widen(const uint8_t* data, uint32_t width, size_t n, uint32_t* value) {
  if (width == 1) widen_from<uint8_t>(data, n, value);
  else if (width == 2) widen_from<uint16_t>(data, n, value);
  else widen_from<uint32_t>(data, n, value);
}

void fill(const Table& table, size_t dim, const Column& column, size_t first, const size_t* index, size_t n,
                 uint32_t* value) {
  const Field field = table.boxes.field[dim];
  const std::vector<U128>* starts = nullptr;
  if (kFields[index_of(field)].kind == FieldKind::address) starts = &table.boxes.ranks[index_of(field)].starts;
  if (column.data == nullptr) {
    std::fill(value, value + n, 0);
  } else if (starts != nullptr && !starts->empty()) {
    for (size_t i = 0; i < n; ++i)
      value[i] = table.boxes.ranks[index_of(field)].rank(column.address(index != nullptr ? index[i] : first + i));
  } else if (column.width == 16) {
    for (size_t i = 0; i < n; ++i)
      value[i] = static_cast<uint32_t>(column.address(index != nullptr ? index[i] : first + i).lo);
  } else if (index == nullptr && column.stride == static_cast<ptrdiff_t>(column.width)) {
    widen(column.at(first), column.width, n, value);
  } else {
    for (size_t i = 0; i < n; ++i) value[i] = column.number(index != nullptr ? index[i] : first + i);
  }
}

uint32_t value_of(const Table& table, size_t dim, const PacketKey& key) {
  const Field field = table.boxes.field[dim];
  if (kFields[index_of(field)].kind != FieldKind::address) return key[field];
  const RankMap& ranks = table.boxes.ranks[index_of(field)];
  const U128 address = key.address[index_of(field)];
  return ranks.starts.empty() ? static_cast<uint32_t>(address.lo) : ranks.rank(address);
}

struct ScalarContext {
  const RuleBook* book;
  const PacketKey* key;
  static bool verify(void* context, size_t, int32_t rule) {
    const auto* self = static_cast<const ScalarContext*>(context);
    return self->book->truth(*self->key, rule) != Truth::No;
  }
};
struct BatchContext {
  const RuleBook* book;
  const KeyColumns* keys;
  size_t first;
  const size_t* index;
  size_t packet;  // whose key is held
  PacketKey key;
  static bool verify(void* context, size_t packet, int32_t rule) {
    auto* self = static_cast<BatchContext*>(context);
    if (self->packet != packet) {
      self->key = self->keys->key(self->index != nullptr ? self->index[packet] : self->first + packet);
      self->packet = packet;
    }
    return self->book->truth(self->key, rule) != Truth::No;
  }
};

constexpr size_t kSpareSteps = 1024;  // of a walk with unknown fields, beyond once through the whole table

struct UnknownWalk {
  const Table& table;
  const RuleBook& book;
  const PacketKey& key;
  uint32_t value[kMaxDims];
  uint32_t unknown_dims;
  size_t steps_left;  // none: trying every rule in turn is cheaper
  int32_t best = kNoRule;

  void walk(uint32_t node_at) {
    if (steps_left == 0) return;
    --steps_left;
    const Node node = table.view.nodes[node_at];
    if (node.mask == 0) return scan_leaf(node.first);
    if ((unknown_dims >> node.dim & 1) == 0) return walk(node.first + (value[node.dim] >> node.shift & node.mask));
    walk_children(node);
  }

  // Values often share a child; as many as fit the list are walked once.
  void walk_children(const Node& node) {
    uint64_t walked[64];
    size_t n_walked = 0;
    for (uint32_t c = 0; c <= node.mask && steps_left != 0; ++c) {
      uint64_t child;
      std::memcpy(&child, &table.view.nodes[node.first + c], sizeof child);
      if (std::find(walked, walked + n_walked, child) != walked + n_walked) continue;
      if (n_walked < std::size(walked)) walked[n_walked++] = child;
      walk(node.first + c);
    }
  }

  void scan_leaf(uint32_t block_at) {
    for (const uint8_t* block = table.view.blocks + size_t{block_at} * table.view.block_bytes;;
         block += table.view.block_bytes) {
      if (steps_left == 0) return;
      --steps_left;
      const auto& tail = *reinterpret_cast<const BlockTail*>(block + table.view.tail_offset);
      for (int lane = 0; lane < kLanes && (tail.valid >> lane & 1); ++lane) {
        if (tail.rule[lane] >= best) return;
        if (may_fit(block, lane) && book.truth(key, tail.rule[lane]) != Truth::No) {
          best = tail.rule[lane];
          return;
        }
      }
      if (tail.last) return;
    }
  }

  bool may_fit(const uint8_t* block, int lane) const {
    const View& view = table.view;
    for (int d = 0; d < view.n32 + view.n16 + view.n8; ++d) {
      uint32_t lo, width;
      if (d < view.n32) {
        std::memcpy(&lo, block + 4 * lane, 4);
        std::memcpy(&width, block + 4 * (kLanes + lane), 4);
        block += 8 * kLanes;
      } else if (d < view.n32 + view.n16) {
        uint16_t lo16, width16;
        std::memcpy(&lo16, block + 2 * lane, 2);
        std::memcpy(&width16, block + 2 * (kLanes + lane), 2);
        lo = lo16, width = width16;
        block += 4 * kLanes;
      } else {
        lo = block[lane], width = block[kLanes + lane];
        block += 2 * kLanes;
      }
      if ((unknown_dims >> d & 1) == 0 && value[d] - lo > width) return false;
    }
    return true;
  }
};

}  // namespace

Table::Table(Trees trees)
    : boxes(std::move(trees.boxes)),
      nodes(TableArray<Node>::copy_of(trees.nodes)),
      blocks(TableArray<uint8_t>::copy_of(trees.blocks)),
      worst_case_steps(trees.worst_case_steps) {
  view.n_trees = trees.n_trees;
  view.bound_shift = trees.bound_shift;
  std::copy(trees.root.begin(), trees.root.end(), view.root);
  std::copy(trees.first_rule.begin(), trees.first_rule.end(), view.first_rule);
  point_view();
}

void Table::point_view() {
  view.nodes = nodes.data();
  view.blocks = blocks.data();
  view.block_bytes = static_cast<uint32_t>(boxes.block_bytes());
  view.tail_offset = static_cast<uint32_t>(boxes.tail_offset());
  view.n32 = boxes.n32;
  view.n16 = boxes.n16;
  view.n8 = boxes.n8;
}

size_t Table::bytes() const {
  const size_t starts = boxes.ranks[0].starts.size() + boxes.ranks[1].starts.size();
  return nodes.bytes() + blocks.bytes() + starts * sizeof(U128);
}

void FieldUse::add(const Match& match) {
  for (int f = 0; f < kFieldCount; ++f) {
    if (match[f] == kAnySet) continue;
    const auto field = static_cast<Field>(f);
    if (field == Field::ip_ver) {
      names_version = true;
      continue;
    }
    used |= bit_of(field);
    if (const Group g = group_of(field); g != kAlways) group_fields[g] |= bit_of(field);
    if (kFields[f].requires_ != Requires::nothing && kFields[f].requires_ != Requires::vlan_tag)
      needs_ip |= bit_of(field);
  }
}

RuleResult Forest::first_match(const PacketKey& key, const RuleBook& book) const {
  Route route = route_of(key.present, key[Field::ip_ver], key[Field::proto]);
  for (const Field field : {Field::src_ip, Field::dst_ip})
    route.scan |= route.family == kV4 && key.has(field) && beyond_v4(key.address[index_of(field)]);
  if (route.scan) return book.scan(key);
  if (route.unknown != 0) return first_match_unknown(route, key, book);
  const Table& table = tables[route.family];
  uint32_t value[kMaxDims * kChunk];
  for (size_t d = 0; d < table.boxes.dims(); ++d) value[d * kChunk] = value_of(table, d, key);
  ScalarContext context{&book, &key};
  const Packets packets{value, route.absent ? &route.absent : nullptr, 1, &ScalarContext::verify, &context};
  int32_t best = kNoRule;
  backend->forest_first_match(table.view, packets, &best);
  book.answer(&best, 1);
  return best;
}

void Forest::first_match_batch(const KeyColumns& keys, const RuleBook& book, RuleResult* out) const {
  uint32_t columns_present = 0;
  for (int f = 0; f < kFieldCount; ++f) columns_present |= static_cast<uint32_t>(keys.column[f].data != nullptr) << f;
  const Column& version = keys[Field::ip_ver];
  const bool is_v4 = version.data == nullptr && (keys[Field::src_ip].width == 4 || keys[Field::dst_ip].width == 4);
  const bool one_version = is_v4 || version.data == nullptr || version.stride == 0;
  const bool words = keys[Field::src_ip].width == sizeof(U128) || keys[Field::dst_ip].width == sizeof(U128);
  const bool all_alike = keys.present == nullptr && one_version && (fields.used & ~columns_present) == 0;
  const Column& proto = keys[Field::proto];
  const auto route = [&](size_t i) {
    uint32_t present = columns_present & (keys.present != nullptr ? keys.present[i] : ~uint32_t{0});
    if (is_v4) present |= bit_of(Field::ip_ver);
    Route r = route_of(present, is_v4 ? 4 : version.data != nullptr ? version.number(i) : 0,
                       proto.data != nullptr ? proto.number(i) : 0);
    if (words && r.family == kV4)
      for (const Field field : {Field::src_ip, Field::dst_ip})
        r.scan |= (present & bit_of(field)) != 0 && beyond_v4(keys[field].address(i));
    return r;
  };
  if (all_alike && keys.n != 0) {
    const Route every = route(0);
    if (!every.scan && every.unknown == 0 && every.absent == 0 && (every.family != kV4 || !words)) {
      for (size_t first = 0; first < keys.n; first += kChunk)
        look_up(tables[every.family], keys, book, first, nullptr, nullptr, std::min(kChunk, keys.n - first), out);
      return;
    }
  }
  for (size_t first = 0; first < keys.n; first += kChunk) {
    size_t index[kFamilies][kChunk];
    uint32_t absent[kFamilies][kChunk];
    size_t n[kFamilies] = {};
    for (size_t i = first; i < std::min(first + kChunk, keys.n); ++i) {
      const Route r = route(i);
      if (r.scan) {
        out[i] = book.scan(keys.key(i));
      } else if (r.unknown != 0) {
        out[i] = first_match_unknown(r, keys.key(i), book);
      } else {
        index[r.family][n[r.family]] = i;
        absent[r.family][n[r.family]++] = r.absent;
      }
    }
    for (int family = 0; family < kFamilies; ++family)
      if (n[family] != 0) look_up(tables[family], keys, book, 0, index[family], absent[family], n[family], out);
  }
}

EngineStats Forest::stats() const {
  EngineStats stats;
  for (const Table& table : tables) {
    stats.bytes += table.bytes();
    stats.worst_case_steps = std::max(stats.worst_case_steps, table.worst_case_steps);
  }
  return stats;
}

// --- which table, and what the packet lacks

Forest::Route Forest::route_of(uint32_t present, uint32_t version, uint32_t proto) const {
  Route route;
  const uint32_t missing = fields.used & ~present;
  const bool version_known = (present & bit_of(Field::ip_ver)) != 0;
  const uint32_t addresses = bit_of(Field::src_ip) | bit_of(Field::dst_ip);
  if (version_known && version == 6) {
    route.family = kV6;
  } else if (version_known && version == 0 && (fields.needs_ip & ~missing) == 0) {
    route.family = kNoIp;
  } else {
    // Without a version every table is the same where no rule names version or address.
    route.scan = version_known ? version != 4 : fields.names_version || (fields.used & addresses) != 0;
  }
  if (missing == 0 || route.scan) return route;

  PacketKey key;  // as much of it as absence depends on
  key.present = present & (bit_of(Field::ip_ver) | bit_of(Field::proto));
  key.value[index_of(Field::ip_ver)] = version;
  key.value[index_of(Field::proto)] = proto;
  uint32_t unseen = 0;
  for (uint32_t left = missing; left != 0; left &= left - 1) {
    const auto field = static_cast<Field>(__builtin_ctz(left));
    const Group group = group_of(field);
    if (!requirement_fails(kFields[index_of(field)].requires_, key)) {
      unseen |= bit_of(field);
    } else if (group != kAlways) {
      // A packet with some fields of a group that it cannot have is nothing that a decoder makes.
      if ((fields.group_fields[group] & ~missing) != 0) route.scan = true;
      route.absent |= uint32_t{0xff} << (8 * group);
    }
  }
  route.unknown = unseen;
  route.scan |= (unseen & tables[route.family].boxes.blind) != 0;
  return route;
}

// --- packets of which everything is known

void Forest::look_up(const Table& table, const KeyColumns& keys, const RuleBook& book, size_t first,
                     const size_t* index, const uint32_t* absent, size_t n, RuleResult* out) const {
  uint32_t value[kMaxDims * kChunk];
  for (size_t d = 0; d < table.boxes.dims(); ++d)
    fill(table, d, keys[table.boxes.field[d]], first, index, n, value + d * kChunk);
  BatchContext context{&book, &keys, first, index, ~size_t{0}, {}};
  const Packets packets{value, absent, n, &BatchContext::verify, &context};
  int32_t best[kChunk];
  std::fill(best, best + n, kNoRule);
  backend->forest_first_match(table.view, packets, best);
  book.answer(best, n);
  for (size_t i = 0; i < n; ++i) out[index != nullptr ? index[i] : first + i] = best[i];
}

// --- packets with unknown fields

RuleResult Forest::first_match_unknown(const Route& route, const PacketKey& key, const RuleBook& book) const {
  const Table& table = tables[route.family];
  const size_t n_blocks = table.blocks.bytes() / table.view.block_bytes;
  UnknownWalk walk{table, book, key, {}, 0, table.nodes.size() + 2 * n_blocks + kSpareSteps};
  for (size_t d = 0; d < table.boxes.dims(); ++d) {
    walk.value[d] = value_of(table, d, key);
    // A field that is absent for certain passes the filter too: the exact check tells.
    if (!key.has(table.boxes.field[d])) walk.unknown_dims |= uint32_t{1} << d;
  }
  for (uint32_t t = 0; t < table.view.n_trees; ++t)
    if (table.view.first_rule[t] < walk.best) walk.walk(table.view.root[t]);
  if (walk.steps_left == 0) return book.scan(key);
  if (walk.best == kNoRule) return kNoMatch;
  if (book.truth(key, walk.best) != Truth::Yes) return book.undecided(walk.best);
  book.answer(&walk.best, 1);
  return walk.best;
}

}  // namespace meshsieve::forest
