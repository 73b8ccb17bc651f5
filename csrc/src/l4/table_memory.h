// Memory of look-up tables: aligned to cache lines, in huge pages where the table is large.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace meshsieve {

// A zeroed array of trivial T, or a view of one in a saved table (saved/image.h), which is never written to. Past the end
// stay 64 readable bytes, so that a vector load may start at any element.
template <class T>
class TableArray {
 public:
  TableArray() = default;
  explicit TableArray(size_t n) : size_(n), data_(allocate(n)) {}

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }

  template <class Container>
  static TableArray copy_of(const Container& values) {
    TableArray array(values.size());
    if (!values.empty()) std::memcpy(array.data(), values.data(), array.bytes());
    return array;
  }
  // Whoever holds the view keeps alive what it looks at.
  static TableArray view(const T* data, size_t n) {
    TableArray array;
    if (n == 0) return array;
    array.size_ = n;
    array.data_ = std::unique_ptr<T[], Free>(const_cast<T*>(data), Free{false});
    return array;
  }

 private:
  struct Free {
    bool owned = true;
    void operator()(T* p) const {
      if (owned) std::free(p);
    }
  };

  static constexpr size_t kHugePage = size_t{2} << 20;

  static T* allocate(size_t n) {
    if (n > (~size_t{0} - 2 * kHugePage) / sizeof(T)) throw std::bad_alloc();
    const size_t wanted = n * sizeof(T) + 64;
    const size_t alignment = wanted >= kHugePage ? kHugePage : 64;
    const size_t bytes = (wanted + alignment - 1) / alignment * alignment;
    void* p = std::aligned_alloc(alignment, bytes);
    if (p == nullptr) throw std::bad_alloc();
    // Advice only: where huge pages are switched off, the table works with small ones.
    if (alignment == kHugePage) madvise(p, bytes, MADV_HUGEPAGE);
    std::memset(p, 0, bytes);
    return static_cast<T*>(p);
  }

  size_t size_ = 0;
  std::unique_ptr<T[], Free> data_;
};

}  // namespace meshsieve
