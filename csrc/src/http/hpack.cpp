#include "http/hpack.h"

#include <array>
#include <string_view>

namespace meshsieve {

namespace {

constexpr uint32_t kEntryOverhead = 32;  // RFC 7541, section 4.1

// RFC 7541, appendix A; index 1 is the first.
constexpr std::array<std::pair<std::string_view, std::string_view>, 61> kStaticTable = {{
    {":authority", ""}, {":method", "GET"}, {":method", "POST"}, {":path", "/"}, {":path", "/index.html"},
    {":scheme", "http"}, {":scheme", "https"}, {":status", "200"}, {":status", "204"}, {":status", "206"},
    {":status", "304"}, {":status", "400"}, {":status", "404"}, {":status", "500"}, {"accept-charset", ""},
    {"accept-encoding", "gzip, deflate"}, {"accept-language", ""}, {"accept-ranges", ""}, {"accept", ""},
    {"access-control-allow-origin", ""}, {"age", ""}, {"allow", ""}, {"authorization", ""}, {"cache-control", ""},
    {"content-disposition", ""}, {"content-encoding", ""}, {"content-language", ""}, {"content-length", ""},
    {"content-location", ""}, {"content-range", ""}, {"content-type", ""}, {"cookie", ""}, {"date", ""}, {"etag", ""},
    {"expect", ""}, {"expires", ""}, {"from", ""}, {"host", ""}, {"if-match", ""}, {"if-modified-since", ""},
    {"if-none-match", ""}, {"if-range", ""}, {"if-unmodified-since", ""}, {"last-modified", ""}, {"link", ""},
    {"location", ""}, {"max-forwards", ""}, {"proxy-authenticate", ""}, {"proxy-authorization", ""}, {"range", ""},
    {"referer", ""}, {"refresh", ""}, {"retry-after", ""}, {"server", ""}, {"set-cookie", ""},
    {"strict-transport-security", ""}, {"transfer-encoding", ""}, {"user-agent", ""}, {"vary", ""}, {"via", ""},
    {"www-authenticate", ""},
}};

// RFC 7541, appendix B, as a canonical code: codes of one length are consecutive numbers, and the first code of a length
// follows from the last one of the length before. So the symbols in the order of their codes, and how many there are of
// each length, say everything. Symbol 256 is the end of string, which must not occur.
constexpr int kMaxCodeBits = 30;
constexpr std::array<uint8_t, kMaxCodeBits + 1> kCodesOfLength = {0, 0, 0, 0, 0, 10, 26, 32, 6,  0, 5,  3,  2,  6,  2, 3,
                                                                  0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0,  4};
constexpr std::array<uint16_t, 257> kSymbols = {
    48, 49, 50, 97, 99, 101, 105, 111, 115, 116, 32, 37, 45, 46, 47, 51, 52, 53, 54, 55, 56, 57, 61, 65, 95, 98,
    100, 102, 103, 104, 108, 109, 110, 112, 114, 117, 58, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79,
    80, 81, 82, 83, 84, 85, 86, 87, 89, 106, 107, 113, 118, 119, 120, 121, 122, 38, 42, 44, 59, 88, 90, 33, 34, 40,
    41, 63, 39, 43, 124, 35, 62, 0, 36, 64, 91, 93, 126, 94, 125, 60, 96, 123, 92, 195, 208, 128, 130, 131, 162,
    184, 194, 224, 226, 153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129, 132, 133, 134, 136,
    146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232, 233, 1, 135,
    137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180, 182, 183,
    188, 191, 197, 231, 239, 9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237, 199, 207, 234, 235, 192, 193,
    200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255, 203, 204, 211, 212, 214, 221, 222, 223, 241,
    244, 245, 246, 247, 248, 250, 251, 252, 253, 254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21,
    23, 24, 25, 26, 27, 28, 29, 30, 31, 127, 220, 249, 10, 13, 22, 256};
constexpr uint16_t kEndOfString = 256;

// Short codes, which are nearly all of real text, by their first kFastBits bits.
constexpr int kFastBits = 10;
struct FastEntry {
  uint8_t symbol;
  uint8_t bits;  // 0 = a longer code
};

constexpr std::array<FastEntry, 1 << kFastBits> make_fast_table() {
  std::array<FastEntry, 1 << kFastBits> table{};
  uint32_t code = 0;
  size_t at = 0;
  for (int bits = 1; bits <= kFastBits; ++bits) {
    code <<= 1;
    for (int i = 0; i < kCodesOfLength[bits]; ++i, ++code, ++at) {
      const uint32_t first = code << (kFastBits - bits);
      for (uint32_t j = 0; j < 1u << (kFastBits - bits); ++j) {
        table[first + j] = {static_cast<uint8_t>(kSymbols[at]), static_cast<uint8_t>(bits)};
      }
    }
  }
  return table;
}
constexpr auto kFast = make_fast_table();

struct Symbol {
  uint16_t symbol = 0;
  int bits = 0;  // 0 = no code is complete
};

// The first symbol of `window`, whose top `have` bits are valid.
Symbol first_symbol(uint64_t window, int have) {
  const FastEntry fast = kFast[window >> (64 - kFastBits)];
  if (fast.bits != 0 && fast.bits <= have) return {fast.symbol, fast.bits};
  uint32_t first = 0;  // code of this length
  size_t at = 0;       // its symbol
  for (int bits = 1; bits <= kMaxCodeBits && bits <= have; ++bits) {
    first <<= 1;
    const auto code = static_cast<uint32_t>(window >> (64 - bits));
    if (code - first < kCodesOfLength[bits]) return {kSymbols[at + (code - first)], bits};
    at += kCodesOfLength[bits];
    first += kCodesOfLength[bits];
  }
  return {};
}

// What is left of a block; every read says whether the bytes were there.
class BlockReader {
 public:
  explicit BlockReader(std::span<const uint8_t> block) : left_(block) {}

  bool done() const { return left_.empty(); }
  uint8_t peek() const { return left_.front(); }

  // RFC 7541, section 5.1. Numbers over 32 bits mean nothing in HPACK and are refused.
  bool integer(int prefix_bits, uint64_t& out) {
    if (left_.empty()) return false;
    const auto mask = static_cast<uint8_t>((1 << prefix_bits) - 1);
    out = left_.front() & mask;
    left_ = left_.subspan(1);
    if (out < mask) return true;
    for (int shift = 0; shift <= 28 && !left_.empty(); shift += 7) {
      const uint8_t byte = left_.front();
      left_ = left_.subspan(1);
      out += static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return out <= 0xffffffff;
    }
    return false;
  }

  bool string(std::string& out) {
    if (left_.empty()) return false;
    const bool huffman = (left_.front() & 0x80) != 0;
    uint64_t length;
    if (!integer(7, length) || length > left_.size()) return false;
    const auto text = left_.first(static_cast<size_t>(length));
    left_ = left_.subspan(text.size());
    out.clear();
    if (huffman) return huffman_decode(text, out);
    out.assign(text.begin(), text.end());
    return true;
  }

 private:
  std::span<const uint8_t> left_;
};

uint32_t size_of(std::string_view name, std::string_view value) {
  return static_cast<uint32_t>(name.size() + value.size()) + kEntryOverhead;
}

}  // namespace

bool huffman_decode(std::span<const uint8_t> coded, std::string& out) {
  uint64_t window = 0;
  int have = 0;
  size_t at = 0;
  for (;;) {
    for (; have <= 56 && at < coded.size(); have += 8) window |= static_cast<uint64_t>(coded[at++]) << (56 - have);
    const Symbol found = first_symbol(window, have);
    if (found.bits == 0) break;
    if (found.symbol == kEndOfString) return false;
    out.push_back(static_cast<char>(found.symbol));
    window <<= found.bits;
    have -= found.bits;
  }
  // What is left is padding: under 8 bits, all ones (the beginning of the end of string).
  return at == coded.size() && have < 8 && (have == 0 || window >> (64 - have) == (uint64_t{1} << have) - 1);
}

void HpackDecoder::forget_history() {
  table_.clear();
  table_bytes_ = 0;
  partial_ = true;
  limit_ = allowed_ = kMaxHpackTable;  // what was agreed is not known either
}

uint32_t HpackDecoder::Entry::size() const { return size_of(name ? std::string_view(*name) : "", value); }

HpackDecoder::Found HpackDecoder::find(uint64_t index, Line& line) const {
  if (index == 0) return Found::no;
  if (index <= kStaticTable.size()) {
    line = {kStaticTable[index - 1].first, kStaticTable[index - 1].second, nullptr};
    return Found::yes;
  }
  const uint64_t place = index - kStaticTable.size() - 1;
  if (place >= table_.size()) return partial_ ? Found::missing : Found::no;
  const Entry& entry = table_[place];
  if (!entry.name) return Found::missing;
  line = {*entry.name, entry.value, &entry};
  return Found::yes;
}

void HpackDecoder::shrink_to(uint32_t bytes) {
  while (table_bytes_ > bytes) {
    table_bytes_ -= table_.back().size();
    table_.pop_back();
  }
}

void HpackDecoder::insert(Entry&& entry) {
  const uint32_t size = entry.size();
  if (size > limit_) {
    shrink_to(0);
    return;
  }
  shrink_to(limit_ - size);
  table_.push_front(std::move(entry));
  table_bytes_ += size;
}

HpackDecoder::Outcome HpackDecoder::decode(std::span<const uint8_t> block, size_t max_list_bytes, HeaderLines& out) {
  constexpr Outcome kBad{.ok = false};
  BlockReader reader(block);
  Outcome outcome;
  size_t list_bytes = 0;
  std::string name, value;
  const auto keep = [&](std::string_view a, std::string_view b) {
    list_bytes += size_of(a, b);
    if (list_bytes <= max_list_bytes) out.emplace_back(a, b);
    else outcome.too_large = true;
  };
  for (bool first_line = true; !reader.done();) {
    const uint8_t first = reader.peek();
    uint64_t number;
    if ((first & 0xe0) == 0x20) {  // another table size, only before the first line
      if (!reader.integer(5, number) || !first_line || number > allowed_ || number > kMaxHpackTable) return kBad;
      limit_ = static_cast<uint32_t>(number);
      shrink_to(limit_);
      continue;
    }
    first_line = false;
    const bool indexed = (first & 0x80) != 0;
    const bool add = (first & 0xc0) == 0x40;  // a literal for the table (01) or not (0000, 0001)
    if (!reader.integer(indexed ? 7 : add ? 6 : 4, number)) return kBad;
    Line line;
    const bool named = !indexed && number == 0;
    if (named && !reader.string(name)) return kBad;
    const Found found = named ? Found::yes : find(number, line);
    if (found == Found::no) return kBad;
    if (named) line.name = name;
    if (!indexed) {
      if (!reader.string(value)) return kBad;
      line.value = value;
    }
    if (found == Found::missing) outcome.missing = true;
    else keep(line.name, line.value);
    if (!add) continue;
    // A literal of unknown name stays in the table without name, so that the entries behind it are found.
    Entry entry{nullptr, std::move(value)};
    if (line.entry != nullptr) entry.name = line.entry->name;
    else if (found == Found::yes) entry.name = std::make_shared<const std::string>(line.name);
    insert(std::move(entry));
  }
  return outcome;
}

}  // namespace meshsieve
