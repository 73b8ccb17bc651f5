#include "saved/image.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <system_error>

#include "meshsieve/errors.h"
#include "meshsieve/fields.h"

namespace meshsieve::saved {
namespace {

constexpr char kMagic[8] = {'\x89', 'M', 'S', 'T', '\r', '\n', '\x1a', '\n'};  // as PNG: notices text-mode transfers
constexpr uint32_t kByteOrder = 0x01020304;
static_assert(std::endian::native == std::endian::little, "saved tables are read in place: little-endian");

constexpr uint64_t finished(uint64_t x) {
  x = (x ^ x >> 32) * 0xd6e8feb86659fd93;
  return x ^ x >> 29;
}

// Four lanes of 64 bits. A step maps a lane one to one, so a change of one word always shows.
class Checksum {
 public:
  void add(const uint8_t* data, size_t bytes) {  // a multiple of 32
    for (const uint8_t* end = data + bytes; data != end; data += 32) {
      uint64_t word[4];
      std::memcpy(word, data, 32);
      for (int k = 0; k < 4; ++k) {
        lane_[k] = (lane_[k] ^ word[k]) * 0x9e3779b97f4a7c15;
        lane_[k] ^= lane_[k] >> 31;
      }
    }
  }
  void store(uint64_t out[2]) const {
    out[0] = out[1] = 0;
    for (int k = 0; k < 4; ++k) {
      out[0] = finished(out[0] + lane_[k]);
      out[1] = finished(out[1] ^ std::rotl(lane_[k], 13));
    }
  }

 private:
  uint64_t lane_[4] = {1, 2, 3, 4};
};

void checksum_of(const uint8_t* image, size_t size, uint64_t out[2]) {
  Header header;
  std::memcpy(&header, image, sizeof header);
  header.checksum[0] = header.checksum[1] = 0;
  Checksum sum;
  sum.add(reinterpret_cast<const uint8_t*>(&header), sizeof header);
  sum.add(image + sizeof header, size - sizeof header);
  sum.store(out);
}

[[noreturn]] void fail(const std::string& why) { throw TableError(why); }

class Descriptor {
 public:
  explicit Descriptor(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) throw std::system_error(errno, std::generic_category());
  }
  ~Descriptor() { close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int operator*() const { return fd_; }

 private:
  int fd_;
};

// The size of a regular file that begins with our magic: nothing is allocated or mapped for another.
size_t size_of(const Descriptor& file) {
  struct stat facts;
  if (fstat(*file, &facts) != 0) throw std::system_error(errno, std::generic_category());
  if (!S_ISREG(facts.st_mode)) fail("is no regular file");
  char magic[sizeof kMagic];
  if (pread(*file, magic, sizeof magic, 0) != sizeof magic || std::memcmp(magic, kMagic, sizeof magic) != 0)
    fail("is no saved table");
  return static_cast<size_t>(facts.st_size);
}

void read_all(const Descriptor& file, uint8_t* to, size_t size) {
  for (size_t done = 0; done < size;) {
    const ssize_t n = pread(*file, to + done, size - done, static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw std::system_error(errno, std::generic_category());
    if (n == 0) fail("has become shorter while it was read");
    done += static_cast<size_t>(n);
  }
}

}  // namespace

uint64_t fields_fingerprint() {
  uint64_t hash = 0xcbf29ce484222325;
  const auto add = [&hash](uint64_t value) { hash = (hash ^ value) * 0x100000001b3; };
  for (const FieldInfo& field : kFields) {
    for (const char* c = field.name; *c != '\0'; ++c) add(static_cast<uint8_t>(*c));
    add(static_cast<uint64_t>(field.kind) << 16 | static_cast<uint64_t>(field.requires_) << 8 |
        static_cast<uint64_t>(field.bits));
  }
  return hash;
}

void seal(uint8_t* image, size_t size) {
  Header header;
  std::memcpy(&header, image, sizeof header);
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.byte_order = kByteOrder;
  header.version = kFormatVersion;
  header.fields = fields_fingerprint();
  header.length = size;
  std::memcpy(image, &header, sizeof header);
  checksum_of(image, size, header.checksum);
  std::memcpy(image, &header, sizeof header);
}

std::shared_ptr<const Image> Image::open(const std::string& path, bool mapped) {
  const Descriptor file(path);
  std::shared_ptr<Image> image(new Image);
  image->size_ = size_of(file);
  if (mapped) {
    void* p = mmap(nullptr, image->size_, PROT_READ, MAP_SHARED, *file, 0);
    if (p == MAP_FAILED) throw std::system_error(errno, std::generic_category());
    image->mapped_ = true;
    image->data_ = static_cast<const uint8_t*>(p);
  } else {
    image->own_ = TableArray<uint8_t>(image->size_);
    read_all(file, image->own_.data(), image->size_);
    image->data_ = image->own_.data();
  }
  image->check();
  return image;
}

std::shared_ptr<const Image> Image::of(std::span<const uint8_t> bytes) {
  std::shared_ptr<Image> image(new Image);
  image->own_ = TableArray<uint8_t>::copy_of(bytes);
  image->data_ = image->own_.data();
  image->size_ = bytes.size();
  image->check();
  return image;
}

Image::~Image() {
  if (mapped_) munmap(const_cast<uint8_t*>(data_), size_);
}

void Image::check() const {
  if (size_ < sizeof(Header) || std::memcmp(data_, kMagic, sizeof kMagic) != 0) fail("is no saved table");
  const Header& h = header();
  if (h.byte_order != kByteOrder) fail("was written by a machine of another byte order");
  if (h.version != kFormatVersion)
    fail("has format version " + std::to_string(h.version) + ", this meshsieve reads version " +
         std::to_string(kFormatVersion) + "; compile it again");
  if ((h.flags & ~uint32_t{kSigned}) != 0) fail("has features that this meshsieve does not know");
  const size_t tag = (h.flags & kSigned) != 0 ? kTagBytes : 0;
  if (size_ < tag || h.length != size_ - tag || h.length % kAlignment != 0 || h.length < sizeof(Header))
    fail("says it has " + std::to_string(h.length) + " bytes, and has " + std::to_string(size_));
  if (h.n_rows > (h.length - sizeof(Header)) / sizeof(Row)) fail("has more parts than bytes");
  uint64_t sum[2];
  checksum_of(data_, h.length, sum);
  if (sum[0] != h.checksum[0] || sum[1] != h.checksum[1]) fail("is damaged: its checksum differs");
  if (h.fields != fields_fingerprint())
    fail("was written by a meshsieve with other packet fields; compile it again");
}

}  // namespace meshsieve::saved
