#include <algorithm>
#include <type_traits>
#include <utility>

#include "meshsieve/flow_table.h"

namespace meshsieve {

namespace {

template <class T>
constexpr ColumnType type_of() {
  if constexpr (std::is_same_v<T, U128>) return ColumnType::address;
  else if constexpr (std::is_same_v<T, int64_t>) return ColumnType::i64;
  else if constexpr (sizeof(T) == 1) return ColumnType::u8;
  else if constexpr (sizeof(T) == 2) return ColumnType::u16;
  else if constexpr (sizeof(T) == 4) return ColumnType::u32;
  else return ColumnType::u64;
}

}  // namespace

FlowRow& FlowBatch::append(const FlowRow& row) {
  if (waiting_.size() == kMostWaiting) settle();
  if (waiting_.empty()) waiting_.reserve(kMostWaiting);
  return waiting_.emplace_back(row);
}

void FlowBatch::describe_last(const Attributes& found) {
  found.for_each([&](Attribute attribute, std::string_view text) {
    auto& column = attributes[static_cast<size_t>(attribute)];
    column.resize(size() - 1, -1);
    column.push_back(texts.number(text));
  });
}

void FlowBatch::complete() {
  settle();
  for (auto& column : attributes) {
    if (!column.empty()) column.resize(size(), -1);
  }
}

void FlowBatch::settle() {
  const auto fill = [this](auto& column, auto member) {
    const size_t n = column.size();
    if (column.capacity() < n + waiting_.size()) column.reserve(2 * n + kMostWaiting);
    column.resize(n + waiting_.size());
    std::transform(waiting_.begin(), waiting_.end(), column.begin() + static_cast<ptrdiff_t>(n),
                   [member](const FlowRow& row) { return row.*member; });
  };
#define FIELD_COLUMN(type, name) fill(name, &FlowRow::name);
#define FLOW_COLUMN(type, name, doc) fill(name, &FlowRow::name);
#include "meshsieve/flow_columns.def"
#undef FIELD_COLUMN
#undef FLOW_COLUMN
  fill(present, &FlowRow::present);
  waiting_.clear();
}

void FlowBatch::clear() {
#define FIELD_COLUMN(type, name) name.clear();
#define FLOW_COLUMN(type, name, doc) name.clear();
#include "meshsieve/flow_columns.def"
#undef FIELD_COLUMN
#undef FLOW_COLUMN
  present.clear();
  waiting_.clear();
  for (auto& column : attributes) column.clear();
  texts.clear();
}

void FlowBatch::reserve(size_t n) {
#define FIELD_COLUMN(type, name) name.reserve(n);
#define FLOW_COLUMN(type, name, doc) name.reserve(n);
#include "meshsieve/flow_columns.def"
#undef FIELD_COLUMN
#undef FLOW_COLUMN
  present.reserve(n);
}

// Records of one flow stand in the order of their times already: they were written one after another.
void FlowBatch::sort() {
  std::vector<std::pair<uint64_t, size_t>> order(size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = {flow_id[i], i};
  std::sort(order.begin(), order.end());
  const auto reorder = [&]<class T>(std::vector<T>& column) {
    std::vector<T> sorted(column.size());
    std::transform(order.begin(), order.end(), sorted.begin(), [&](const auto& row) { return column[row.second]; });
    column.swap(sorted);
  };
#define FIELD_COLUMN(type, name) reorder(name);
#define FLOW_COLUMN(type, name, doc) reorder(name);
#include "meshsieve/flow_columns.def"
#undef FIELD_COLUMN
#undef FLOW_COLUMN
  reorder(present);
  for (auto& column : attributes) {
    if (!column.empty()) reorder(column);
  }
}

std::vector<FlowBatch::ColumnInfo> FlowBatch::columns() const {
  std::vector<ColumnInfo> out;
#define FIELD_COLUMN(type, name) out.push_back({#name, type_of<type>(), ColumnGroup::field, name.data()});
#define FLOW_COLUMN(type, name, doc) out.push_back({#name, type_of<type>(), ColumnGroup::extra, name.data()});
#include "meshsieve/flow_columns.def"
#undef FIELD_COLUMN
#undef FLOW_COLUMN
  return out;
}

}  // namespace meshsieve
