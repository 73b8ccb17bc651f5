// One captured packet as values: what the decoder makes of its bytes.
//
// What    decode() reads the headers of one frame down to the transport of the innermost IP header and fills a Packet.
// Why     It is a pure function: the same bytes give the same Packet alone, in a batch, from any capture format.
//         What needs memory of other packets (fragments, flows) is in flow_table.h.
// Limits  16 layers, 8 VLAN tags, 16 MPLS labels, 16 IPv6 extension headers, 4 tunnels; each has its own status.
// Cost    no allocation, constant stack, time linear in the headers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "meshsieve/fields.h"
#include "meshsieve/types.h"

namespace meshsieve {

enum class DecodeStatus : uint8_t {
#define DECODE_STATUS(name, doc) name,
#include "meshsieve/decode_status.def"
#undef DECODE_STATUS
};
inline constexpr int kDecodeStatusCount = 0
#define DECODE_STATUS(name, doc) +1
#include "meshsieve/decode_status.def"
#undef DECODE_STATUS
    ;

enum class TunnelKind : uint8_t {
#define TUNNEL_KIND(name, doc) name,
#include "meshsieve/tunnel_kind.def"
#undef TUNNEL_KIND
};

inline constexpr int kMaxLayers = 16;
inline constexpr int kMaxVlanTags = 8;
inline constexpr int kMaxMplsLabels = 16;
inline constexpr int kMaxExtensionHeaders = 16;
inline constexpr int kMaxTunnels = 4;

// The columns that every packet has; all zero = nothing known.
struct DenseColumns {
#define FIELD_COLUMN(type, name) type name{};
#define DENSE_COLUMN(type, name, doc) type name{};
#define SPARSE_COLUMN(type, name, doc)
#include "meshsieve/packet_columns.def"
#undef FIELD_COLUMN
#undef DENSE_COLUMN
#undef SPARSE_COLUMN
  uint32_t present{};
};

struct SparseColumns {
#define FIELD_COLUMN(type, name)
#define DENSE_COLUMN(type, name, doc)
#define SPARSE_COLUMN(type, name, doc) type name{};
#include "meshsieve/packet_columns.def"
#undef FIELD_COLUMN
#undef DENSE_COLUMN
#undef SPARSE_COLUMN
};

// Sparse columns are valid only where has_sparse; sparse() makes them so.
struct Packet : DenseColumns, SparseColumns {
  bool has_sparse = false;
  uint32_t tcp_ack = 0;  // acknowledgement number; no column. Valid with the field tcp_flags, right after decode()

  void clear() {
    static_cast<DenseColumns&>(*this) = DenseColumns{};
    has_sparse = false;
  }
  SparseColumns& sparse() {
    if (!has_sparse) static_cast<SparseColumns&>(*this) = SparseColumns{};
    has_sparse = true;
    return *this;
  }
  bool has(Field field) const { return (present & bit_of(field)) != 0; }
  bool is_fragment() const { return has_sparse && (more_fragments != 0 || fragment_offset != 0); }
  bool is_later_fragment() const { return has_sparse && fragment_offset != 0; }
};

// One record of a capture file; `data` is valid as long as its reader says.
struct Record {
  const uint8_t* data = nullptr;
  uint32_t captured = 0;   // bytes at data
  uint32_t length = 0;     // bytes on the wire, at least `captured`
  int64_t time_ns = 0;     // since 1970-01-01
  uint64_t number = 0;     // 1-based in its file
  uint32_t link_type = 0;  // LINKTYPE_ value, tcpdump.org/linktypes.html
  uint16_t file = 0;       // index among the files read
};

void decode(const Record& record, Packet& packet);

// True for link types that decode() knows.
bool link_type_is_known(uint32_t link_type);

}  // namespace meshsieve
