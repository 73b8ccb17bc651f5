// ClientHello, ServerHello and Certificate: names, versions and fingerprints.
//
// GREASE  Values of RFC 8701 (0x?a?a with equal bytes) are no part of a fingerprint and no version.
// JA3     MD5 of "version,ciphers,extensions,groups,point formats", decimal, joined by '-'
// JA4     carrier, highest version, SNI (d) or not (i), numbers of ciphers and extensions, first ALPN's ends; then 12
//         hexadecimal digits each of SHA-256 over the sorted ciphers, and over the sorted extensions without SNI and
//         ALPN, '_', signature algorithms as sent
// Source  RFC 8446, 5246, 6066, 7301, 9146; github.com/salesforce/ja3 (BSD-3-Clause); github.com/FoxIO-LLC/ja4, of
//         which only JA4 (BSD-3-Clause) is made here
#include "app/handshake.h"

#include <array>
#include <charconv>
#include <functional>

#include "app/digest.h"
#include "app/x509.h"

namespace meshsieve::app {

namespace {

constexpr uint16_t kServerName = 0, kGroups = 10, kPointFormats = 11, kSignatures = 13, kAlpn = 16,
                   kSupportedVersions = 43, kEncryptedClientHello = 0xfe0d;

bool is_grease(uint16_t value) { return (value & 0x0f0f) == 0x0a0a && value >> 8 == (value & 0xff); }

using Values = std::vector<uint16_t>;

// A list of 16-bit values behind a 16-bit length.
bool read_list16(Reader& reader, Values& out) {
  Reader list(reader.vector16());
  out.reserve(list.left() / 2);
  while (list.left() >= 2) out.push_back(list.u16());
  return reader.ok() && list.empty();
}

void add_decimal(std::string& out, uint16_t value) {
  char digits[5];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

// "," and the values that are no GREASE, decimal, joined by '-'.
void add_decimals(std::string& out, const Values& values) {
  char separator = ',';
  for (const uint16_t value : values) {
    if (is_grease(value)) continue;
    out += separator;
    add_decimal(out, value);
    separator = '-';
  }
  if (separator == ',') out += separator;
}

std::string hex4(uint16_t value) {
  constexpr char kDigits[] = "0123456789abcdef";
  return {kDigits[value >> 12], kDigits[value >> 8 & 15], kDigits[value >> 4 & 15], kDigits[value & 15]};
}

std::string joined_hex(const Values& values) {
  std::string out;
  out.reserve(values.size() * 5);
  for (const uint16_t value : values) {
    if (!out.empty()) out += ',';
    out += hex4(value);
  }
  return out;
}

// Fingerprints of the hellos seen last. Clients and servers repeat themselves (which is what fingerprints are for), and
// finding one again costs a fraction of making it. `key` is all that the fingerprint is made from, word for word, so what is
// found is what would have been made.
template <class Made>
class Lately {
 public:
  template <class Make>
  const Made& find(const Values& key, const Make& make) {
    const std::string_view bytes(reinterpret_cast<const char*>(key.data()), 2 * key.size());
    Entry& entry = entries_[std::hash<std::string_view>()(bytes) % entries_.size()];
    if (entry.key.empty() || entry.key != key) {
      entry.made = make();
      if (key.size() <= kLongest) entry.key = key;
      else entry.key.clear();
    }
    return entry.made;
  }

 private:
  struct Entry {
    Values key;
    Made made;
  };
  static constexpr size_t kLongest = 512;  // a longer key, which no common client has, is not kept: at most 512 KiB in all
  std::array<Entry, 512> entries_;
};

struct ClientHello {
  uint16_t version = 0;
  Values ciphers, extensions, groups, signatures, versions;
  Values point_formats;
  std::vector<std::string_view> alpn;
  std::string_view server_name;
  bool has_server_name = false;
  bool encrypted = false;
};

bool is_host_name(std::string_view name) {
  if (name.empty() || name.size() > 255) return false;
  for (const char c : name) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte <= ' ' || byte == 0x7f) return false;
  }
  return true;
}

void read_extension(uint16_t kind, Bytes body, ClientHello& hello) {
  Reader reader(body);
  switch (kind) {
    case kServerName: {
      hello.has_server_name = true;
      Reader names(reader.vector16());
      while (names.left() >= 3) {
        const uint8_t type = names.u8();
        const std::string_view name = text_of(names.vector16());
        if (names.ok() && type == 0 && is_host_name(name)) {
          hello.server_name = name;
          break;
        }
      }
      break;
    }
    case kGroups: read_list16(reader, hello.groups); break;
    case kPointFormats:
      for (const uint8_t format : reader.vector8()) hello.point_formats.push_back(format);
      break;
    case kSignatures: read_list16(reader, hello.signatures); break;
    case kSupportedVersions: {
      Reader versions(reader.vector8());
      while (versions.left() >= 2) hello.versions.push_back(versions.u16());
      break;
    }
    case kAlpn: {
      Reader names(reader.vector16());
      while (!names.empty()) {
        const std::string_view name = text_of(names.vector8());
        if (names.ok() && !name.empty()) hello.alpn.push_back(name);
      }
      break;
    }
    case kEncryptedClientHello: hello.encrypted = true; break;
    default: break;
  }
}

bool parse(Bytes body, HelloOf carrier, ClientHello& hello) {
  Reader reader(body);
  hello.version = reader.u16();
  const uint8_t major = hello.version >> 8;
  if (major != 3 && major != 0xfe && hello.version != 0x0100) return false;
  reader.skip(32);
  if (reader.vector8().size() > 32) return false;
  if (carrier == HelloOf::dtls) reader.vector8();  // cookie
  if (!read_list16(reader, hello.ciphers) || hello.ciphers.empty()) return false;
  if (reader.vector8().empty() || !reader.ok()) return false;  // compression methods
  if (reader.empty()) return true;                             // SSL 3.0 and early TLS 1.0 end here
  constexpr size_t kUsual = 24;
  hello.extensions.reserve(kUsual);
  Reader extensions(reader.vector16());
  if (!reader.ok()) return false;
  while (!extensions.empty()) {
    const uint16_t kind = extensions.u16();
    const Bytes extension = extensions.vector16();
    if (!extensions.ok()) return false;
    hello.extensions.push_back(kind);
    read_extension(kind, extension, hello);
  }
  return true;
}

std::string ja3(const ClientHello& hello) {
  std::string text;
  text.reserve(512);
  add_decimal(text, hello.version);
  for (const Values* values : {&hello.ciphers, &hello.extensions, &hello.groups}) add_decimals(text, *values);
  char separator = ',';
  for (const uint16_t format : hello.point_formats) {  // one byte each: no GREASE among them
    text += separator;
    add_decimal(text, format);
    separator = '-';
  }
  if (separator == ',') text += separator;
  return md5_hex(text);
}

uint16_t highest_version(const ClientHello& hello, HelloOf carrier) {
  uint16_t highest = 0;
  for (const uint16_t version : hello.versions) {
    if (is_grease(version)) continue;
    // DTLS counts downwards (RFC 9147, section 5.3).
    const bool higher = carrier == HelloOf::dtls ? highest == 0 || version < highest : version > highest;
    if (higher) highest = version;
  }
  return highest != 0 ? highest : hello.version;
}

std::string_view ja4_version(uint16_t version) {
  switch (version) {
    case 0x0304: return "13";
    case 0x0303: return "12";
    case 0x0302: return "11";
    case 0x0301: return "10";
    case 0x0300: return "s3";
    case 0x0002: return "s2";
    case 0xfeff: return "d1";
    case 0xfefd: return "d2";
    case 0xfefc: return "d3";
    default: return "00";
  }
}

std::string two_digits(size_t n) {
  n = std::min<size_t>(n, 99);
  return {static_cast<char>('0' + n / 10), static_cast<char>('0' + n % 10)};
}

bool is_alphanumeric(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

// First and last character of the first protocol; of its hexadecimal form if one of them is no letter or digit.
std::string ja4_alpn(const ClientHello& hello) {
  if (hello.alpn.empty()) return "00";
  const char first = hello.alpn[0].front(), last = hello.alpn[0].back();
  if (is_alphanumeric(first) && is_alphanumeric(last)) return {first, last};
  constexpr char kDigits[] = "0123456789abcdef";
  return {kDigits[static_cast<uint8_t>(first) >> 4], kDigits[static_cast<uint8_t>(last) & 15]};
}

Values without_grease(const Values& values) {
  Values out;
  for (const uint16_t value : values) {
    if (!is_grease(value)) out.push_back(value);
  }
  return out;
}

std::string ja4(const ClientHello& hello, HelloOf carrier) {
  Values ciphers = without_grease(hello.ciphers), extensions = without_grease(hello.extensions);
  std::string out(1, static_cast<char>(carrier));
  out += ja4_version(highest_version(hello, carrier));
  out += hello.has_server_name ? 'd' : 'i';
  out += two_digits(ciphers.size()) + two_digits(extensions.size()) + ja4_alpn(hello) + '_';
  std::sort(ciphers.begin(), ciphers.end());
  out += ciphers.empty() ? std::string(12, '0') : sha256_hex(joined_hex(ciphers)).substr(0, 12);
  out += '_';
  std::erase_if(extensions, [](uint16_t kind) { return kind == kServerName || kind == kAlpn; });
  std::sort(extensions.begin(), extensions.end());
  const Values signatures = without_grease(hello.signatures);
  std::string tail = joined_hex(extensions);
  if (!signatures.empty()) tail += '_' + joined_hex(signatures);
  out += hello.extensions.empty() ? std::string(12, '0') : sha256_hex(tail).substr(0, 12);
  return out;
}

struct ClientPrints {
  std::string ja3, ja4;
};

// Both fingerprints. The key: all lists with their sizes, and what else ja4() looks at.
const ClientPrints& prints_of(const ClientHello& hello, HelloOf carrier) {
  static thread_local Lately<ClientPrints> lately;
  static thread_local Values key;
  key.clear();
  const std::string_view protocol = hello.alpn.empty() ? std::string_view() : hello.alpn[0];
  const auto end_of = [](char c) { return static_cast<uint8_t>(c); };
  key.push_back(static_cast<uint16_t>(static_cast<uint8_t>(carrier) << 8 | hello.has_server_name << 1 | !protocol.empty()));
  key.push_back(protocol.empty() ? 0 : static_cast<uint16_t>(end_of(protocol.front()) << 8 | end_of(protocol.back())));
  key.push_back(hello.version);
  key.push_back(highest_version(hello, carrier));
  for (const Values* list : {&hello.ciphers, &hello.extensions, &hello.groups, &hello.point_formats, &hello.signatures}) {
    const size_t at = key.size();
    key.push_back(0);
    for (const uint16_t value : *list) {
      if (!is_grease(value)) key.push_back(value);  // which of them a client draws makes no difference
    }
    key[at] = static_cast<uint16_t>(key.size() - at - 1);
  }
  key.push_back(!hello.extensions.empty());  // also if all of them are GREASE
  return lately.find(key, [&] { return ClientPrints{ja3(hello), ja4(hello, carrier)}; });
}

// MD5 of "version,suite,extensions" of a ServerHello, decimal.
const std::string& ja3s(uint16_t version, uint16_t suite, const Values& extensions) {
  static thread_local Lately<std::string> lately;
  static thread_local Values key;
  key.assign({version, suite});
  key.insert(key.end(), extensions.begin(), extensions.end());
  return lately.find(key, [&] {
    std::string text = std::to_string(version) + ',' + std::to_string(suite) + ',';
    for (size_t i = 0; i < extensions.size(); ++i) {
      if (i != 0) text += '-';
      add_decimal(text, extensions[i]);
    }
    return md5_hex(text);
  });
}

}  // namespace

std::string_view tls_version_name(uint16_t version) {
  switch (version) {
    case 0x0002: return "SSLv2";
    case 0x0300: return "SSLv3";
    case 0x0301: return "TLSv1.0";
    case 0x0302: return "TLSv1.1";
    case 0x0303: return "TLSv1.2";
    case 0x0304: return "TLSv1.3";
    case 0xfeff:
    case 0x0100: return "DTLSv1.0";
    case 0xfefd: return "DTLSv1.2";
    case 0xfefc: return "DTLSv1.3";
    default: break;
  }
  if (version >> 8 == 0x7f) return "TLSv1.3";  // drafts
  return {};
}

std::string cipher_suite_name(uint16_t suite) {
  switch (suite) {
#define SUITE(code, name) \
  case code: return #name;
#include "app/cipher_suites.def"
#undef SUITE
    default: return "0x" + hex4(suite);
  }
}

bool read_client_hello(Bytes body, HelloOf carrier, Attributes& out) {
  if (out.has(Attribute::ja4)) return true;  // the first one counts
  ClientHello hello;
  if (!parse(body, carrier, hello)) return false;
  if (!hello.server_name.empty()) out.set(Attribute::sni, hello.server_name);
  std::string protocols;
  for (const std::string_view name : hello.alpn) {
    if (!protocols.empty()) protocols += ',';
    protocols += name;
  }
  if (!protocols.empty()) out.set(Attribute::alpn, protocols);
  if (hello.encrypted) out.set(Attribute::ech, "outer");
  out.set(Attribute::tls_version, tls_version_name(highest_version(hello, carrier)));
  const ClientPrints& prints = prints_of(hello, carrier);
  out.set(Attribute::ja3, prints.ja3);
  out.set(Attribute::ja4, prints.ja4);
  return true;
}

bool read_server_hello(Bytes body, Attributes& out) {
  if (out.has(Attribute::tls_cipher)) return true;
  Reader reader(body);
  const uint16_t legacy = reader.u16();
  if (legacy >> 8 != 3 && legacy >> 8 != 0xfe && legacy >> 8 != 0x7f && legacy != 0x0100) return false;
  reader.skip(32);
  // The drafts of TLS 1.3 up to 21 have neither session nor compression.
  const bool draft = legacy >> 8 == 0x7f;
  if (!draft && reader.vector8().size() > 32) return false;
  const uint16_t suite = reader.u16();
  if (!draft) reader.skip(1);
  if (!reader.ok()) return false;
  uint16_t version = legacy;
  Values kinds;
  if (!reader.empty()) {
    Reader extensions(reader.vector16());
    if (!reader.ok()) return false;
    while (!extensions.empty()) {
      const uint16_t kind = extensions.u16();
      Reader extension(extensions.vector16());
      if (!extensions.ok()) return false;
      kinds.push_back(kind);
      if (kind == kSupportedVersions) version = extension.u16();
      if (kind == kAlpn) {
        Reader names(extension.vector16());
        const Bytes name = names.vector8();
        if (names.ok() && !name.empty()) out.set(Attribute::alpn_chosen, name.data(), name.size());
      }
    }
  }
  if (!tls_version_name(version).empty()) out.replace(Attribute::tls_version, tls_version_name(version));
  out.set(Attribute::tls_cipher, cipher_suite_name(suite));
  out.set(Attribute::ja3s, ja3s(legacy, suite, kinds));
  return true;
}

void read_certificates(Bytes body, Attributes& out) {
  Reader reader(body);
  Reader list(reader.up_to(reader.u24()));
  const uint32_t size = list.u24();
  const Bytes first = list.bytes(size);
  if (!list.ok()) return;
  const std::string names = certificate_names(first);
  if (!names.empty()) out.set(Attribute::certificate_names, names);
}

}  // namespace meshsieve::app
