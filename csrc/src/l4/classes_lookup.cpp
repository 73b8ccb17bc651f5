// The class front end at work: a chunk of packets, field by field, into class ids.
#include <bit>

#include "l4/classes_table.h"
#include "meshsieve/classifier.h"

namespace meshsieve::classes {
namespace {

// Numbers [first, first + n) of a column: in place where they already are contiguous 32-bit, else widened into `buffer`.
const uint32_t* load32(const Column& column, size_t first, size_t n, uint32_t* buffer) {
  const uint8_t* data = column.at(first);
  if (column.width == 4 && column.stride == 4) return reinterpret_cast<const uint32_t*>(data);
  if (column.width == 2 && column.stride == 2) {
    for (size_t i = 0; i < n; ++i) {
      uint16_t value;
      std::memcpy(&value, data + 2 * i, 2);
      buffer[i] = value;
    }
  } else if (column.width == 1 && column.stride == 1) {
    for (size_t i = 0; i < n; ++i) buffer[i] = data[i];
  } else {
    for (size_t i = 0; i < n; ++i) buffer[i] = column.number(first + i);
  }
  return buffer;
}

bool derives_ipv4(const KeyColumns& keys) {
  return keys[Field::ip_ver].data == nullptr && (keys[Field::src_ip].width == 4 || keys[Field::dst_ip].width == 4);
}

uint32_t columns_given(const KeyColumns& keys) {
  uint32_t given = derives_ipv4(keys) ? bit_of(Field::ip_ver) : 0;
  for (int f = 0; f < kFieldCount; ++f)
    if (keys.column[f].data != nullptr) given |= uint32_t{1} << f;
  return given;
}

// out[i] gets, or is increased by, the id of each value. Columns of another width than 1 and 2 may hold more than the
// field: what does not fit is in no set.
template <bool kAdd>
void classify_small(const PagedMap& map, const Column& column, size_t first, size_t n, uint32_t* __restrict out) {
  const auto put = [out](size_t i, uint32_t id) { out[i] = kAdd ? out[i] + id : id; };
  if (column.width == 1 && column.stride == 1) {
    const uint8_t* values = column.at(first);
#pragma GCC unroll 4
    for (size_t i = 0; i < n; ++i) put(i, map[values[i]]);
  } else if (column.width == 2 && column.stride == 2) {
    const uint8_t* values = column.at(first);
#pragma GCC unroll 4
    for (size_t i = 0; i < n; ++i) {
      uint16_t value;
      std::memcpy(&value, values + 2 * i, 2);
      put(i, map[value]);
    }
  } else {
    for (size_t i = 0; i < n; ++i) {
      const uint32_t value = column.number(first + i);
      put(i, value <= 0xffff ? map[value] : kNoSet);
    }
  }
}

// A field of at most 16 bits whose column holds it and nothing else: one or two bytes a packet, in a row.
struct SmallColumn {
  const PagedMap* map;
  const uint8_t* data;
};
constexpr size_t kHighByte = std::endian::native == std::endian::little ? 1 : 0;

// A table that joins some fields of one byte and of two, read in one pass: joined field by field, the sums that pass
// through memory would cost as much as the look-ups.
template <size_t kBytes, size_t kWords>
void join_columns(const SmallColumn* given, const uint16_t* table, size_t n, uint32_t* __restrict out) {
  SmallColumn column[kBytes + kWords];  // a copy, which `out` cannot change
  for (size_t k = 0; k < kBytes + kWords; ++k) column[k] = given[k];
#pragma GCC unroll 2
  for (size_t i = 0; i < n; ++i) {
    uint32_t index = 0;
    for (size_t k = 0; k < kBytes; ++k) index += column[k].map->at(0, column[k].data[i]);
    for (size_t k = kBytes; k < kBytes + kWords; ++k)
      index += column[k].map->at(column[k].data[2 * i + kHighByte], column[k].data[2 * i + 1 - kHighByte]);
    out[i] = table[index];
  }
}

constexpr size_t kMostBytes = 2, kMostWords = 2;  // services: protocol and flags, ports

template <size_t... kCombination>
constexpr auto all_joins(std::index_sequence<kCombination...>) {
  return std::array{join_columns<kCombination / (kMostWords + 1), kCombination % (kMostWords + 1)>...};
}
constexpr auto kJoinColumns = all_joins(std::make_index_sequence<(kMostBytes + 1) * (kMostWords + 1)>());

// Addresses [first, first + n) of a column: in place where they already are contiguous, else copied into `buffer`.
const U128* load128(const Column& column, size_t first, size_t n, U128* buffer) {
  const uint8_t* data = column.at(first);
  const bool in_place = column.width == sizeof(U128) && column.stride == sizeof(U128) &&
                        reinterpret_cast<uintptr_t>(data) % alignof(U128) == 0;
  if (in_place) return reinterpret_cast<const U128*>(data);
  for (size_t i = 0; i < n; ++i) buffer[i] = column.address(first + i);
  return buffer;
}

// Fills in which packets are of IPv6; returns how many. Without a version none is.
size_t find_v6(const Column& version, size_t first, size_t n, uint8_t* is_v6) {
  size_t n_v6 = 0;
  if (version.data == nullptr) {
    std::fill_n(is_v6, n, uint8_t{0});
  } else if (version.width == 1 && version.stride == 1) {
    const uint8_t* versions = version.at(first);
    for (size_t i = 0; i < n; ++i) n_v6 += is_v6[i] = versions[i] == 6;
  } else {
    for (size_t i = 0; i < n; ++i) n_v6 += is_v6[i] = version.number(first + i) == 6;
  }
  return n_v6;
}

void classify_address(const FieldMap& map, const simd::Backend& backend, const KeyColumns& keys, size_t first, size_t n,
                      uint32_t* out) {
  const Column& column = keys.column[map.field];
  const Column& version = keys[Field::ip_ver];
  uint32_t buffer[kChunk];
  if (column.width == 4 && version.data == nullptr)
    return backend.search32(map.v4.view(), load32(column, first, n, buffer), n, out);

  U128 wide_buffer[kChunk];
  uint8_t is_v6[kChunk];
  const U128* wide = load128(column, first, n, wide_buffer);
  const size_t n_v6 = find_v6(version, first, n, is_v6);
  if (n_v6 == n) return backend.search128(map.v6.view(), wide, n, out);
  for (size_t i = 0; i < n; ++i) buffer[i] = static_cast<uint32_t>(wide[i].lo);
  backend.search32(map.v4.view(), buffer, n, out);
  if (n_v6 != 0) {
    uint32_t v6[kChunk];
    backend.search128(map.v6.view(), wide, n, v6);
    for (size_t i = 0; i < n; ++i) out[i] = is_v6[i] ? v6[i] : out[i];
  }
  // An IPv4 address beyond 32 bits is none: in no set.
  for (size_t i = 0; i < n; ++i)
    if (!is_v6[i] && U128{0, 0xffffffffu} < wide[i]) out[i] = kNoSet;
}

}  // namespace

void ClassFront::classify(const KeyColumns& keys, size_t first, size_t n, ClassChunk& chunk) const {
  chunk.unknown = {};
  const PacketMask incomplete = packets_lacking(keys, first, n);
  const bool lacking = incomplete.any();
  if (lacking) {
    for (size_t m = 0; m < maps_.size(); ++m) classify_field(maps_[m], keys, first, n, chunk.field[m]);
    mark_missing(keys, first, incomplete, chunk);
  }
  const auto add = [&](int m, uint32_t* __restrict index) {
    const FieldMap& map = maps_[static_cast<size_t>(m)];
    uint32_t* ids = chunk.field[m];
    if (!lacking) {
      if (map.is_small() && keys.column[map.field].data != nullptr)
        return classify_small<true>(map.small, keys.column[map.field], first, n, index);
      classify_field(map, keys, first, n, ids);
    }
    for (size_t i = 0; i < n; ++i) index[i] += ids[i];
  };
  for (size_t d = 0; d < dimensions_.size(); ++d) {
    const Dimension& dimension = dimensions_[d];
    uint32_t* out = chunk.joined[d];
    chunk.dimension[d] = dimension.joins.empty() ? chunk.field[dimension.map] : out;
    if (dimension.joins.empty() && !lacking)
      classify_field(maps_[static_cast<size_t>(dimension.map)], keys, first, n, chunk.field[dimension.map]);
    for (const Join& join : dimension.joins) {
      if (!lacking && join_small(join, keys, first, n, out)) continue;
      uint32_t index[kChunk];
      for (size_t i = 0; i < n; ++i) index[i] = join.previous_stride == 0 ? 0 : out[i] * join.previous_stride;
      for (const int m : join.maps) add(m, index);
      const uint16_t* table = join.table.data();
#pragma GCC unroll 4
      for (size_t i = 0; i < n; ++i) out[i] = table[index[i]];
    }
  }
}

// False, and nothing done, where the join's fields do not all lie in columns of one or two bytes, or are too many.
bool ClassFront::join_small(const Join& join, const KeyColumns& keys, size_t first, size_t n, uint32_t* out) const {
  SmallColumn columns[kMostBytes + kMostWords];
  size_t n_bytes = 0, n_words = 0;
  for (const uint32_t width : {1u, 2u})
    for (const int m : join.maps) {
      const FieldMap& map = maps_[static_cast<size_t>(m)];
      const Column& column = keys.column[map.field];
      if (column.width != width || column.stride != static_cast<ptrdiff_t>(width)) continue;
      size_t& of_width = width == 1 ? n_bytes : n_words;
      if (!map.is_small() || of_width == (width == 1 ? kMostBytes : kMostWords)) return false;
      columns[n_bytes + n_words] = {&map.small, column.at(first)};
      ++of_width;
    }
  if (join.previous_stride != 0 || n_bytes + n_words != join.maps.size()) return false;
  kJoinColumns[n_bytes * (kMostWords + 1) + n_words](columns, join.table.data(), n, out);
  return true;
}

void ClassFront::classify_field(const FieldMap& map, const KeyColumns& keys, size_t first, size_t n,
                                uint32_t* out) const {
  const Column& column = keys.column[map.field];
  if (column.data == nullptr) {
    const bool is_four = map.field == index_of(Field::ip_ver) && derives_ipv4(keys);
    for (size_t i = 0; i < n; ++i) out[i] = is_four ? map.small[4] : kNoSet;
  } else if (map.is_small()) {
    classify_small<false>(map.small, column, first, n, out);
  } else if (map.is_address()) {
    classify_address(map, *backend_, keys, first, n, out);
  } else {
    uint32_t buffer[kChunk];
    backend_->search32(map.v4.view(), load32(column, first, n, buffer), n, out);
  }
}

// The packets that lack any field which rules name, or the version of their addresses.
PacketMask ClassFront::packets_lacking(const KeyColumns& keys, size_t first, size_t n) const {
  uint32_t needed = fields_used_;
  if (needed & (bit_of(Field::src_ip) | bit_of(Field::dst_ip))) needed |= bit_of(Field::ip_ver);
  const uint32_t given = columns_given(keys);
  PacketMask lacking;
  if ((needed & ~given) == 0) {
    if (keys.present == nullptr) return lacking;
    if (derives_ipv4(keys)) needed &= ~bit_of(Field::ip_ver);
    uint32_t common = ~uint32_t{0};
    for (size_t i = 0; i < n; ++i) common &= keys.present[first + i];
    if ((needed & ~common) == 0) return lacking;
  }
  for (size_t i = 0; i < n; ++i)
    if ((needed & ~given) != 0 || (needed & ~keys.present[first + i]) != 0) lacking.set(i);
  return lacking;
}

// Puts packets that lack a field into class 0 or `unknown` of that field.
void ClassFront::mark_missing(const KeyColumns& keys, size_t first, const PacketMask& lacking,
                              ClassChunk& chunk) const {
  const uint32_t given = columns_given(keys);
  const bool derived = derives_ipv4(keys);
  const Column& version = keys[Field::ip_ver];
  const Column& proto = keys[Field::proto];
  PacketKey known;  // the fields that `requirement_fails` looks at
  lacking.for_each([&](size_t i) {
    uint32_t present = given;
    if (keys.present != nullptr) present &= keys.present[first + i] | (derived ? bit_of(Field::ip_ver) : 0);
    known.present = present;
    known.value[index_of(Field::ip_ver)] = derived ? 4 : version.data != nullptr ? version.number(first + i) : 0;
    known.value[index_of(Field::proto)] = proto.data != nullptr ? proto.number(first + i) : 0;
    for (size_t m = 0; m < maps_.size(); ++m) {
      const FieldMap& map = maps_[m];
      const bool has = present >> map.field & 1;
      if (has && (!map.is_address() || known.has(Field::ip_ver))) continue;
      const bool not_applicable = !has && requirement_fails(kFields[map.field].requires_, known);
      chunk.field[m][i] = not_applicable ? kNoSet : map.unknown;
      if (!not_applicable) chunk.unknown.set(i);
    }
  });
}

KeyColumns columns_of(const PacketKey& key) {
  KeyColumns keys;
  keys.n = 1;
  for (int f = 0; f < kFieldCount; ++f) {
    if ((key.present >> f & 1) == 0) continue;
    const bool address = kFields[f].kind == FieldKind::address;
    keys.column[f] = {address ? static_cast<const void*>(&key.address[f]) : &key.value[f], address ? 16u : 4u, 0};
  }
  return keys;
}

Verdicts::Verdicts(std::shared_ptr<const RuleSet> rules, int32_t begin, int32_t end)
    : rules_(std::move(rules)), result_(static_cast<size_t>(end - begin) + 1), as_they_are_(begin == 0) {
  result_[0] = kNoMatch;
  for (int32_t r = begin; r < end; ++r)
    result_[static_cast<size_t>(r - begin) + 1] = rules_->certain[r] ? r : undecided_at(r);
  for (int32_t r = begin; r < end; ++r) as_they_are_ = as_they_are_ && rules_->certain[r];
}

void Verdicts::finish(const KeyColumns& keys, size_t first, size_t n, const PacketMask& unknown,
                      RuleResult* results) const {
  if (!as_they_are_)
    for (size_t i = 0; i < n; ++i) results[i] = result_[static_cast<size_t>(results[i] + 1)];
  unknown.for_each([&](size_t i) {
    if (results[i] >= 0) results[i] = reference_first_match(*rules_, keys.key(first + i), results[i], results[i] + 1);
  });
}

}  // namespace meshsieve::classes
