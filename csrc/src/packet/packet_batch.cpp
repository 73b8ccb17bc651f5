#include "meshsieve/packet_batch.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstring>
#include <new>
#include <type_traits>

#include "packet/rows_to_columns.h"

namespace meshsieve {

namespace {

constexpr size_t kAlign = 64;

size_t column_bytes(size_t width, uint32_t capacity) {
  return (width * (capacity + kRowsBlock - 1) + kAlign - 1) / kAlign * kAlign;
}

template <class T>
constexpr ColumnType type_of() {
  if constexpr (std::is_same_v<T, U128>) return ColumnType::address;
  else if constexpr (std::is_same_v<T, bool>) return ColumnType::boolean;
  else if constexpr (std::is_same_v<T, int64_t>) return ColumnType::i64;
  else if constexpr (sizeof(T) == 1) return ColumnType::u8;
  else if constexpr (sizeof(T) == 2) return ColumnType::u16;
  else if constexpr (sizeof(T) == 4) return ColumnType::u32;
  else return ColumnType::u64;
}

// Columns beside those of packet_columns.def: (name, group).
#define OTHER_COLUMNS(COLUMN)  \
  COLUMN(number, extra)          \
  COLUMN(time_ns, extra)         \
  COLUMN(captured_length, extra) \
  COLUMN(length, extra)          \
  COLUMN(file, extra)            \
  COLUMN(flow_id, flow)          \
  COLUMN(flow_slot, flow)        \
  COLUMN(new_flow, flow)         \
  COLUMN(reply, flow)            \
  COLUMN(ct_state, flow)         \
  COLUMN(app, flow)              \
  COLUMN(app_how, flow)

// Calls visit(pointer member) for every column, `present` included.
template <class Batch, class Visit>
void each_column(Batch& batch, Visit visit) {
#define FIELD_COLUMN(type, name) visit(batch.name);
#define DENSE_COLUMN(type, name, doc) visit(batch.name);
#define SPARSE_COLUMN(type, name, doc) visit(batch.name);
#include "meshsieve/packet_columns.def"
#undef FIELD_COLUMN
#undef DENSE_COLUMN
#undef SPARSE_COLUMN
#define OTHER(name, group) visit(batch.name);
  OTHER_COLUMNS(OTHER)
#undef OTHER
  visit(batch.present);
}

template <class T>
void prefetch_rows(T* column, size_t n) {
  const char* const lines = reinterpret_cast<const char*>(column);
  for (size_t at = 0; at < n * sizeof(T); at += 64) __builtin_prefetch(lines + at, 1);
}

// The narrow columns are neighbours in a packet, in the order of packet_columns.def, and 16 bytes can be read there.
#define FIELD_COLUMN(type, name) +(sizeof(type) == kWidth)
#define DENSE_COLUMN(type, name, doc) +(sizeof(type) == kWidth)
#define SPARSE_COLUMN(type, name, doc)
template <size_t kWidth>
constexpr size_t kDenseColumnsOfWidth = 0
#include "meshsieve/packet_columns.def"
    ;
#undef FIELD_COLUMN
#undef DENSE_COLUMN
#undef SPARSE_COLUMN
constexpr size_t kByteColumns = kDenseColumnsOfWidth<1>, kHalfColumns = kDenseColumnsOfWidth<2>;
static_assert(offsetof(DenseColumns, eth_type) == offsetof(DenseColumns, sport) + 2 * (kHalfColumns - 1));
static_assert(offsetof(DenseColumns, status) == offsetof(DenseColumns, proto) + kByteColumns - 1);
static_assert(offsetof(DenseColumns, proto) + 16 <= sizeof(DenseColumns));

// The size of a mapping is kept in front of it.
constexpr size_t kHeader = kAlign;

}  // namespace

void PacketBatch::FreeBlock::operator()(uint8_t* block) const {
  uint8_t* start = block - kHeader;
  size_t bytes;
  std::memcpy(&bytes, start, sizeof bytes);
  ::munmap(start, bytes);
}

PacketBatch::PacketBatch(uint32_t capacity) : capacity_(capacity) {
  size_t bytes = kHeader;
  each_column(*this, [&](auto* column) { bytes += column_bytes(sizeof *column, capacity); });
  // mmap rather than calloc: pages of columns that stay zero must never be touched.
  void* start = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) throw std::bad_alloc();
  std::memcpy(start, &bytes, sizeof bytes);
  block_.reset(static_cast<uint8_t*>(start) + kHeader);
  uint8_t* at = block_.get();
  each_column(*this, [&](auto*& column) {
    column = reinterpret_cast<std::remove_reference_t<decltype(column)>>(at);
    at += column_bytes(sizeof *column, capacity);
  });
}

void PacketBatch::clear() {
  constexpr size_t kMostSingly = 8;  // an eighth of the rows: then whole columns are cheaper
  if (sparse_given_ || sparse_spread_ > size_ / kMostSingly) {
#define FIELD_COLUMN(type, name)
#define DENSE_COLUMN(type, name, doc)
#define SPARSE_COLUMN(type, name, doc) std::memset(static_cast<void*>(name), 0, sizeof(type) * size_);
#include "meshsieve/packet_columns.def"
#undef SPARSE_COLUMN
  } else {
    for (size_t i = 0; i < sparse_spread_; ++i) {
#define SPARSE_COLUMN(type, name, doc) name[sparse_[i].row] = type{};
#include "meshsieve/packet_columns.def"
#undef SPARSE_COLUMN
    }
  }
#undef FIELD_COLUMN
#undef DENSE_COLUMN
  sparse_given_ = false;
  sparse_spread_ = 0;
  sparse_.clear();
  bytes_.clear();
  byte_offsets_.clear();
  has_flows = false;
  size_ = 0;
}

void PacketBatch::spread_sparse() {
  const std::lock_guard lock(sparse_lock_);
  for (; sparse_spread_ < sparse_.size(); ++sparse_spread_) {
    const SparseRow& sparse = sparse_[sparse_spread_];
#define FIELD_COLUMN(type, name)
#define DENSE_COLUMN(type, name, doc)
#define SPARSE_COLUMN(type, name, doc) name[sparse.row] = sparse.values.name;
#include "meshsieve/packet_columns.def"
#undef FIELD_COLUMN
#undef DENSE_COLUMN
#undef SPARSE_COLUMN
  }
}

// Column by column, so that each is one short stream of stores; the narrow ones together. There are more columns than the
// hardware follows streams, and a batch is larger than the second level of cache: so the rows of the next run are asked
// for here.
void PacketBatch::append(const Record* records, const Packet* packets, size_t n) {
  if (n == 0) return;
  const auto fill = [this, n](auto* column, auto value) {
    auto* const to = column + size_;
    for (size_t i = 0; i < n; ++i) to[i] = value(i);
    prefetch_rows(to + n, n);
  };
  uint8_t* bytes[kByteColumns];
  uint16_t* halves[kHalfColumns];
  size_t n_bytes = 0, n_halves = 0;
  const auto fill_or_note = [&]<class T>(T* column, T DenseColumns::* member) {
    if constexpr (sizeof(T) == 1) bytes[n_bytes++] = column + size_;
    else if constexpr (sizeof(T) == 2) halves[n_halves++] = column + size_;
    else fill(column, [packets, member](size_t i) { return packets[i].*member; });
    if constexpr (sizeof(T) <= 2) prefetch_rows(column + size_ + n, n);
  };
#define FIELD_COLUMN(type, name) fill_or_note(name, &DenseColumns::name);
#define DENSE_COLUMN(type, name, doc) fill_or_note(name, &DenseColumns::name);
#define SPARSE_COLUMN(type, name, doc)
#include "meshsieve/packet_columns.def"
#undef FIELD_COLUMN
#undef DENSE_COLUMN
#undef SPARSE_COLUMN
  rows_to_columns(&packets->sport, sizeof(Packet), n, halves);
  rows_to_columns(&packets->proto, sizeof(Packet), n, bytes);
  fill(present, [packets](size_t i) { return packets[i].present; });
  fill(number, [records](size_t i) { return records[i].number; });
  fill(time_ns, [records](size_t i) { return records[i].time_ns; });
  fill(captured_length, [records](size_t i) { return records[i].captured; });
  fill(length, [records](size_t i) { return records[i].length; });
  fill(file, [records](size_t i) { return records[i].file; });
  for (size_t i = 0; i < n; ++i) {
    if (packets[i].has_sparse) sparse_.push_back({size_ + static_cast<uint32_t>(i), packets[i]});
    if (!keeps_bytes) continue;
    byte_offsets_.push_back(bytes_.size());
    bytes_.insert(bytes_.end(), records[i].data, records[i].data + records[i].captured);
  }
  prefetch_rows(flow_id + size_, n);
  prefetch_rows(flow_slot + size_, n);
  prefetch_rows(new_flow + size_, n);
  prefetch_rows(reply + size_, n);
  prefetch_rows(ct_state + size_, n);
  prefetch_rows(app + size_, n);
  prefetch_rows(app_how + size_, n);
  size_ += static_cast<uint32_t>(n);
}

void PacketBatch::read(uint32_t i, Record& record, Packet& packet) const {
#define FIELD_COLUMN(type, name) packet.name = name[i];
#define DENSE_COLUMN(type, name, doc) packet.name = name[i];
#define SPARSE_COLUMN(type, name, doc) packet.name = name[i];
#include "meshsieve/packet_columns.def"
#undef FIELD_COLUMN
#undef DENSE_COLUMN
#undef SPARSE_COLUMN
  packet.present = present[i];
  packet.has_sparse = true;
  record.number = number[i];
  record.time_ns = time_ns[i];
  record.captured = captured_length[i];
  record.length = length[i];
  record.file = file[i];
  record.data = keeps_bytes ? bytes_.data() + byte_offsets_[i] : nullptr;
}

std::vector<PacketBatch::ColumnInfo> PacketBatch::columns() const {
  std::vector<ColumnInfo> out;
#define FIELD_COLUMN(type, name) out.push_back({#name, type_of<type>(), ColumnGroup::field, name});
#define DENSE_COLUMN(type, name, doc) out.push_back({#name, type_of<type>(), ColumnGroup::extra, name});
#define SPARSE_COLUMN(type, name, doc) out.push_back({#name, type_of<type>(), ColumnGroup::sparse, name});
#include "meshsieve/packet_columns.def"
#undef FIELD_COLUMN
#undef DENSE_COLUMN
#undef SPARSE_COLUMN
#define OTHER(name, group) \
  out.push_back({#name, type_of<std::remove_pointer_t<decltype(name)>>(), ColumnGroup::group, name});
  OTHER_COLUMNS(OTHER)
#undef OTHER
  return out;
}

}  // namespace meshsieve
