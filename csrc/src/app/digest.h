// Hashes and ciphers that fingerprints and QUIC need, from OpenSSL's libcrypto.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "app/bytes.h"

namespace meshsieve::app {

// Lower-case hexadecimal; empty if the library refuses the hash (MD5 in FIPS mode).
std::string md5_hex(std::string_view text);
std::string sha256_hex(std::string_view text);

using Sha256 = std::array<uint8_t, 32>;
Sha256 hmac_sha256(Bytes key, Bytes message);
// HKDF-Expand-Label of TLS 1.3 (RFC 8446, section 7.1) without context; size <= 32.
std::array<uint8_t, 32> hkdf_expand_label(Bytes secret, std::string_view label, size_t size);

using Aes128Key = std::array<uint8_t, 16>;
std::array<uint8_t, 16> aes128_block(const Aes128Key& key, const uint8_t block[16]);
// AES-128-GCM; false if the tag does not fit. `sealed` is cipher text and 16 bytes of tag.
bool aes128_gcm_open(const Aes128Key& key, const std::array<uint8_t, 12>& nonce, Bytes associated, Bytes sealed,
                     std::vector<uint8_t>& plain);

}  // namespace meshsieve::app
