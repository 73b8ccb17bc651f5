// One list of members a structure, from which saving and loading both follow.
//
// What    A structure that is saved has
//             template <class Archive> void visit(Archive& a) { a("levels", levels_)("nodes", nodes_); }
//         one call a member. Writer and Reader are the two archives. A change of a structure is one line there, and a file
//         that was written before it is refused by name.
// Kinds   numbers and enums; strings; TableArray of plain values, which a Reader leaves in the image; std::array and
//         std::vector of plain values, which are copied; std::vector of anything that can be visited; such structures.
// Trust   A Reader proves that what it hands out lies inside the image, nothing about the values: each structure has a
//         `check` for that, which throws TableError.
#pragma once

#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "l4/table_memory.h"
#include "meshsieve/errors.h"
#include "saved/image.h"

namespace meshsieve::saved {

template <class T>
concept Number = std::is_arithmetic_v<T> || std::is_enum_v<T>;

template <class T>
struct IsTableArray : std::false_type {};
template <class T>
struct IsTableArray<TableArray<T>> : std::true_type {};
template <class T>
struct IsStdArray : std::false_type {};
template <class T, size_t N>
struct IsStdArray<std::array<T, N>> : std::true_type {};
template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

template <class T, class Archive>
concept Visited = requires(T& value, Archive& archive) { value.visit(archive); };

// Refuses a table whose values cannot be; `what` says what is wrong, for people who made the file.
inline void require(bool holds, const char* what) {
  if (!holds) throw TableError(std::string("holds a table that cannot be: ") + what);
}

// Collects rows and where their bytes are: the structures must live until write(), or be given to keep().
class Writer {
 public:
  template <class T>
  const T& keep(T value) {
    const auto kept = std::make_shared<const T>(std::move(value));
    kept_.push_back(kept);
    return *kept;
  }
  template <class T>
  Writer& operator()(const char* name, const T& value) {
    if constexpr (Visited<T, Writer>) {
      const_cast<T&>(value).visit(*this);
    } else if constexpr (Number<T>) {
      put_number(name, value);
    } else if constexpr (IsTableArray<T>::value || IsStdArray<T>::value || std::is_same_v<T, std::string>) {
      put_array(name, value.data(), value.size(), sizeof(*value.data()));
    } else {
      static_assert(IsVector<T>::value, "archive.h names the kinds of members");
      using Element = typename T::value_type;
      if constexpr (std::is_trivially_copyable_v<Element> && !Visited<Element, Writer>) {
        put_array(name, value.data(), value.size(), sizeof(Element));
      } else {
        put_number(name, value.size());
        for (const Element& element : value) (*this)(name, element);
      }
    }
    return *this;
  }

  // Bytes of the image, and the image itself into memory of that size.
  size_t size() const { return offset_of_parts() + part_bytes_; }
  void write(uint8_t* to, Kind kind, uint32_t flags) const;

 private:
  struct Part {
    const void* data;
    size_t bytes;
  };

  template <class T>
  void put_number(const char* name, T value) {
    uint64_t word = 0;
    std::memcpy(&word, &value, sizeof value);
    rows_.push_back({name_hash(name), 0, word, 0});
    parts_.push_back({nullptr, 0});
  }
  void put_array(const char* name, const void* data, size_t count, size_t element_bytes);
  size_t offset_of_parts() const;

  std::vector<Row> rows_;
  std::vector<Part> parts_;  // one a row
  std::vector<std::shared_ptr<const void>> kept_;
  size_t part_bytes_ = 0;
};

class Reader {
 public:
  explicit Reader(std::shared_ptr<const Image> image) : image_(std::move(image)) {}
  const std::shared_ptr<const Image>& image() const { return image_; }

  template <class T>
  Reader& operator()(const char* name, T& value) {
    if constexpr (Visited<T, Reader>) {
      value.visit(*this);
    } else if constexpr (Number<T>) {
      get_number(name, value);
    } else if constexpr (IsTableArray<T>::value) {
      using Element = std::remove_cvref_t<decltype(*value.data())>;
      const auto [data, count] = get_array(name, sizeof(Element), alignof(Element));
      value = T::view(reinterpret_cast<const Element*>(data), count);
    } else if constexpr (IsStdArray<T>::value) {
      using Element = typename T::value_type;
      const auto [data, count] = get_array(name, sizeof(Element), alignof(Element));
      require(count == value.size(), "an array of another length");
      std::memcpy(value.data(), data, sizeof value);
    } else if constexpr (std::is_same_v<T, std::string>) {
      const auto [data, count] = get_array(name, 1, 1);
      value.assign(reinterpret_cast<const char*>(data), count);
    } else {
      using Element = typename T::value_type;
      if constexpr (std::is_trivially_copyable_v<Element> && !Visited<Element, Reader>) {
        const auto [data, count] = get_array(name, sizeof(Element), alignof(Element));
        value.resize(count);
        if (count != 0) std::memcpy(value.data(), data, count * sizeof(Element));
      } else {
        size_t count = 0;
        get_number(name, count);
        require(count <= rows_left(), "more elements than rows");  // each has one at least
        value.clear();
        value.resize(count);
        for (Element& element : value) (*this)(name, element);
      }
    }
    return *this;
  }

  // After the last member.
  void finish() const { require(at_ == image_->header().n_rows, "more parts than this meshsieve knows"); }

 private:
  struct Array {
    const uint8_t* data;
    size_t count;
  };

  template <class T>
  void get_number(const char* name, T& value) {
    const uint64_t word = next(name, 0).at;
    if constexpr (sizeof(T) < sizeof word) require(word >> (8 * sizeof(T)) == 0, "a number that is too large");
    if constexpr (std::is_same_v<T, bool>) {
      require(word <= 1, "a truth value that is none");
      value = word != 0;
    } else {
      std::memcpy(&value, &word, sizeof value);
    }
  }
  const Row& next(const char* name, size_t element_bytes);
  Array get_array(const char* name, size_t element_bytes, size_t alignment);
  size_t rows_left() const { return image_->header().n_rows - at_; }

  std::shared_ptr<const Image> image_;
  size_t at_ = 0;
};

}  // namespace meshsieve::saved
