// A saved table as bytes: header, one row a part, parts.
//
// What    Header  | magic : 8 bytes | byte order, version, kind, flags : 32 bits each | length : 64 | checksum : 128 |
//                 | fields : 64 | rows : 64 |
//         Row     | name : 32 | element bytes : 32 | offset or value : 64 | count : 64 |
//                 an array of `count` elements at `offset`; or, with element bytes 0, a number
//         Parts   each at a multiple of 64 bytes with at least 64 bytes behind it, so that tables are read in place
//                 (table_memory.h)
//         Integers are little-endian, and machines of another order refuse the file. Rows come in the order in which
//         structures are visited (archive.h); a name is the hash of the member's, so that a file written by another
//         layout is refused instead of misread.
// Trust   None. The checksum finds accidents: whoever makes a file can make its checksum. So every row is checked here, and
//         every index, offset and depth by the `check` of the structure that reads it, before the first look-up.
// Cost    Open: one pass for the checksum, about 10 GB a second; mapped files are not copied.
// Limits  64-bit lengths; version kFormatVersion alone; the fields of fields.def as they are in this build.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "l4/table_memory.h"

namespace meshsieve::saved {

inline constexpr uint32_t kFormatVersion = 3;
inline constexpr size_t kAlignment = 64;

enum class Kind : uint32_t { classifier = 1, prefixes = 2 };
enum Flags : uint32_t { kSigned = 1 };  // an authentication tag stands behind the image (meshsieve.saved_tables)
inline constexpr size_t kTagBytes = 32;

struct Header {
  char magic[8];
  uint32_t byte_order;
  uint32_t version;
  uint32_t kind;
  uint32_t flags;
  uint64_t length;       // of the image, from the header on
  uint64_t checksum[2];  // of the image with these two words 0
  uint64_t fields;       // fingerprint of fields.def
  uint64_t n_rows;
};
static_assert(sizeof(Header) == 64);

struct Row {
  uint32_t name;
  uint32_t element_bytes;
  uint64_t at;
  uint64_t count;
};
static_assert(sizeof(Row) == 24);

// FNV-1a.
constexpr uint32_t name_hash(const char* name) {
  uint32_t hash = 0x811c9dc5;
  for (; *name != '\0'; ++name) hash = (hash ^ static_cast<uint8_t>(*name)) * 0x01000193;
  return hash;
}

// Writes magic, length, checksum and the like into the header of a whole image; for the writer, and for checks that want
// to come past the checksum.
void seal(uint8_t* image, size_t size);
uint64_t fields_fingerprint();

// The bytes of one saved table, header and rows checked. Whoever reads in place keeps the image.
class Image {
 public:
  // Throws TableError; errors of the system as std::system_error.
  // mapped  shared with other processes and not copied, but whoever may write the file can change the table later
  static std::shared_ptr<const Image> open(const std::string& path, bool mapped);
  static std::shared_ptr<const Image> of(std::span<const uint8_t> bytes);  // copied
  ~Image();
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  const Header& header() const { return *reinterpret_cast<const Header*>(data_); }
  const Row* rows() const { return reinterpret_cast<const Row*>(data_ + sizeof(Header)); }
  std::span<const uint8_t> bytes() const { return {data_, size_}; }  // with what stands behind the image

 private:
  Image() = default;
  void check() const;

  TableArray<uint8_t> own_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  bool mapped_ = false;
};

}  // namespace meshsieve::saved
