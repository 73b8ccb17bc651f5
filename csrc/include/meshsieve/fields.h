// Fields of a packet as numbers: the enum, the presence mask, and columns of many packets.
//
// Generated from fields.def. Presence is explicit: a packet says by one bit a field whether it has it. A missing
// field is either *not applicable* (an ICMP packet has no port: a rule that names one is FALSE) or *unknown* (a
// later fragment has ports, we cannot see them: UNKNOWN). `requirement_fails` tells the two apart.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "meshsieve/types.h"

namespace meshsieve {

enum class Field : uint8_t {
#define FIELD(name, kind, bits, requires_, doc) name,
#include "meshsieve/fields.def"
#undef FIELD
};

inline constexpr int kFieldCount = 0
#define FIELD(name, kind, bits, requires_, doc) +1
#include "meshsieve/fields.def"
#undef FIELD
    ;
static_assert(kFieldCount <= 32, "presence is a 32-bit mask");

enum class FieldKind : uint8_t { address, number, name };
enum class Requires : uint8_t { nothing, ip, ports, tcp, icmp, vlan_tag };

struct FieldInfo {
  const char* name;
  FieldKind kind;
  int bits;
  Requires requires_;
  const char* doc;
  // Largest value; numbers and names only.
  constexpr uint64_t max_value() const { return (uint64_t{1} << bits) - 1; }
};

inline constexpr std::array<FieldInfo, kFieldCount> kFields = {{
#define FIELD(name, kind, bits, requires_, doc) {#name, FieldKind::kind, bits, Requires::requires_, doc},
#include "meshsieve/fields.def"
#undef FIELD
}};

constexpr int index_of(Field field) { return static_cast<int>(field); }
constexpr uint32_t bit_of(Field field) { return uint32_t{1} << index_of(field); }

// Protocols whose header starts with two 16-bit ports (IANA protocol numbers).
constexpr bool has_ports(uint32_t proto) {
  return proto == 6 || proto == 17 || proto == 33 || proto == 132 || proto == 136;
}

// One packet as the classifier sees it. value[f] is meaningful only where present has bit f.
struct PacketKey {
  U128 address[2];                             // src_ip, dst_ip
  std::array<uint32_t, kFieldCount> value{};   // every other field; [src_ip] and [dst_ip] unused
  uint32_t present = 0;

  bool has(Field field) const { return (present & bit_of(field)) != 0; }
  uint32_t operator[](Field field) const { return value[index_of(field)]; }
};
static_assert(index_of(Field::src_ip) == 0 && index_of(Field::dst_ip) == 1, "address[] is indexed by field");

// True where the packet is known to have no such field: a rule that constrains it is FALSE, not UNKNOWN.
inline bool requirement_fails(Requires requires_, const PacketKey& key) {
  const bool not_ip = key.has(Field::ip_ver) && key[Field::ip_ver] == 0;
  const bool proto_known = key.has(Field::proto);
  switch (requires_) {
    case Requires::nothing: return false;
    case Requires::ip: return not_ip;
    case Requires::ports: return not_ip || (proto_known && !has_ports(key[Field::proto]));
    case Requires::tcp: return not_ip || (proto_known && key[Field::proto] != 6);
    case Requires::icmp: return not_ip || (proto_known && key[Field::proto] != 1 && key[Field::proto] != 58);
    case Requires::vlan_tag: return true;  // a frame without a tag has no VLAN id; it is never merely unseen
  }
  return false;
}

// One field of n packets: unsigned integers of `width` bytes (1, 2, 4, or 16 for U128), `stride` bytes apart.
// stride 0 repeats one value; data == nullptr means that no packet has the field.
// An address column of width 4 holds IPv4 addresses.
struct Column {
  const void* data = nullptr;
  uint32_t width = 0;
  ptrdiff_t stride = 0;

  const uint8_t* at(size_t i) const { return static_cast<const uint8_t*>(data) + static_cast<ptrdiff_t>(i) * stride; }
  uint32_t number(size_t i) const {
    const uint8_t* p = at(i);
    switch (width) {
      case 1: return *p;
      case 2: { uint16_t v; std::memcpy(&v, p, 2); return v; }
      default: { uint32_t v; std::memcpy(&v, p, 4); return v; }
    }
  }
  U128 address(size_t i) const {
    if (width == 4) return {0, number(i)};
    U128 v;
    std::memcpy(&v, at(i), 16);
    return v;
  }
};

// The keys of n packets, one column a field. `present`, when given, has one mask a packet and narrows what the
// columns hold; without it every given column is present on every packet. A missing ip_ver column means IPv4
// where the address columns are 4 bytes wide.
struct KeyColumns {
  size_t n = 0;
  std::array<Column, kFieldCount> column{};
  const uint32_t* present = nullptr;

  const Column& operator[](Field field) const { return column[index_of(field)]; }
  Column& operator[](Field field) { return column[index_of(field)]; }
  PacketKey key(size_t i) const;  // fields.cpp
};

}  // namespace meshsieve
