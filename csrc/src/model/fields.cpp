#include "meshsieve/fields.h"

namespace meshsieve {

PacketKey KeyColumns::key(size_t i) const {
  PacketKey key;
  for (int f = 0; f < kFieldCount; ++f) {
    const Column& c = column[f];
    if (c.data == nullptr) continue;
    key.present |= uint32_t{1} << f;
    if (kFields[f].kind == FieldKind::address) {
      key.address[f] = c.address(i);
    } else {
      key.value[f] = c.number(i);
    }
  }
  if (present != nullptr) key.present &= present[i];
  const bool ipv4_only = column[index_of(Field::src_ip)].width == 4 || column[index_of(Field::dst_ip)].width == 4;
  if (column[index_of(Field::ip_ver)].data == nullptr && ipv4_only) {
    key.present |= bit_of(Field::ip_ver);
    key.value[index_of(Field::ip_ver)] = 4;
  }
  return key;
}

}  // namespace meshsieve
