#include "saved/archive.h"

namespace meshsieve::saved {
namespace {

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

void Writer::put_array(const char* name, const void* data, size_t count, size_t element_bytes) {
  const size_t bytes = count * element_bytes;
  rows_.push_back({name_hash(name), static_cast<uint32_t>(element_bytes), part_bytes_, count});
  parts_.push_back({data, bytes});
  part_bytes_ += aligned(bytes) + kAlignment;
}

size_t Writer::offset_of_parts() const { return aligned(sizeof(Header) + rows_.size() * sizeof(Row)); }

void Writer::write(uint8_t* to, Kind kind, uint32_t flags) const {
  std::memset(to, 0, size());
  Header header{};
  header.kind = static_cast<uint32_t>(kind);
  header.flags = flags;
  header.n_rows = rows_.size();
  std::memcpy(to, &header, sizeof header);
  for (size_t i = 0; i < rows_.size(); ++i) {
    Row row = rows_[i];
    if (row.element_bytes != 0) row.at += offset_of_parts();
    std::memcpy(to + sizeof header + i * sizeof row, &row, sizeof row);
    if (parts_[i].bytes != 0) std::memcpy(to + row.at, parts_[i].data, parts_[i].bytes);
  }
  seal(to, size());
}

const Row& Reader::next(const char* name, size_t element_bytes) {
  if (rows_left() == 0 || image_->rows()[at_].name != name_hash(name) ||
      image_->rows()[at_].element_bytes != element_bytes)
    throw TableError(std::string("was written by a meshsieve with other tables ('") + name +
                     "' is not where it is looked for); compile it again");
  return image_->rows()[at_++];
}

Reader::Array Reader::get_array(const char* name, size_t element_bytes, size_t alignment) {
  const Row& row = next(name, element_bytes);
  const uint64_t length = image_->header().length;
  require(row.at % kAlignment == 0 && alignment <= kAlignment, "an array that is not aligned");
  require(row.at <= length - kAlignment && row.count <= (length - kAlignment - row.at) / element_bytes,
          "an array that leaves the file");
  return {image_->bytes().data() + row.at, static_cast<size_t>(row.count)};
}

}  // namespace meshsieve::saved
