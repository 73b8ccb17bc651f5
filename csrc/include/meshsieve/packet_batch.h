// A batch of packets as a struct of arrays.
//
// What    One 64-byte aligned block of memory holds every column; numpy sees it without a copy.
// Why     A Python object a packet caps any reader at about a million packets a second; an array a column does not.
// Memory  What packets have of sparse columns (packet_columns.def) is kept aside, and brought into the columns when
//         somebody wants to see one. They are zeroed when memory is got and again only after use: their pages are never
//         touched in a capture without tunnels, fragments and ICMP errors, or where nobody looks at them.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "meshsieve/packet.h"

namespace meshsieve {

inline constexpr uint32_t kMaxBatch = 65536;
inline constexpr uint32_t kNoFlow = 0xffffffff;

enum class ColumnType : uint8_t { u8, u16, u32, u64, i32, i64, address, boolean };
enum class ColumnGroup : uint8_t { field, extra, sparse, flow };

class PacketBatch {
 public:
  explicit PacketBatch(uint32_t capacity);  // 1..kMaxBatch
  PacketBatch(const PacketBatch&) = delete;
  PacketBatch& operator=(const PacketBatch&) = delete;

  uint32_t size() const { return size_; }
  uint32_t capacity() const { return capacity_; }
  bool full() const { return size_ == capacity_; }
  void clear();
  void append(const Record* records, const Packet* packets, size_t n);  // n <= capacity() - size()
  // Brings the sparse columns up to date: before any of them is read. May be called by several threads.
  void spread_sparse();
  // Row i as the decoder left it, after spread_sparse(); the record has its bytes only if they were kept.
  void read(uint32_t i, Record& record, Packet& packet) const;
  // Packets that were given as columns, not decoded: rows appear and the caller fills the arrays. n <= capacity.
  void resize(uint32_t n) { size_ = n; }
  void mark_sparse_used() { sparse_given_ = true; }
  // True once a flow table has filled the flow columns.
  bool has_flows = false;
  // False: nobody will look at the flow columns, so a flow table may leave them as they are.
  bool shows_flows = true;
  // append() copies what was captured as well, so that read() gives whole records and a flow table can be asked later.
  bool keeps_bytes = false;

  struct ColumnInfo {
    const char* name;
    ColumnType type;
    ColumnGroup group;
    void* data;
  };
  std::vector<ColumnInfo> columns() const;

#define FIELD_COLUMN(type, name) type* name;
#define DENSE_COLUMN(type, name, doc) type* name;
#define SPARSE_COLUMN(type, name, doc) type* name;
#include "meshsieve/packet_columns.def"
#undef FIELD_COLUMN
#undef DENSE_COLUMN
#undef SPARSE_COLUMN
  uint32_t* present;
  uint64_t* number;
  int64_t* time_ns;
  uint32_t* captured_length;
  uint32_t* length;
  uint16_t* file;
  // Written by FlowTable.
  uint64_t* flow_id;
  uint32_t* flow_slot;
  bool* new_flow;
  bool* reply;
  uint8_t* ct_state;
  uint16_t* app;     // of the flow, as far as it is known at this packet
  uint8_t* app_how;

 private:
  struct SparseRow {
    uint32_t row;
    SparseColumns values;
  };
  struct FreeBlock {
    void operator()(uint8_t* block) const;
  };
  uint32_t capacity_;
  uint32_t size_ = 0;
  std::vector<uint8_t> bytes_;          // of all rows, one behind the other
  std::vector<size_t> byte_offsets_;    // where those of a row begin
  bool sparse_given_ = false;           // by the caller, on rows that nobody noted
  std::vector<SparseRow> sparse_;
  size_t sparse_spread_ = 0;            // so many of them are in the columns
  std::mutex sparse_lock_;              // of spread_sparse()
  std::unique_ptr<uint8_t, FreeBlock> block_;
};

}  // namespace meshsieve
