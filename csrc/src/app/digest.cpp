#include "app/digest.h"

#include <openssl/evp.h>

#include <memory>
#include <new>

namespace meshsieve::app {

namespace {

std::string hex_of(Bytes bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(2 * bytes.size());
  for (const uint8_t byte : bytes) {
    out.push_back(kDigits[byte >> 4]);
    out.push_back(kDigits[byte & 15]);
  }
  return out;
}

// Looking an algorithm up costs more than a short hash, so each is fetched once.
const EVP_MD* sha256() {
  static const EVP_MD* const kind = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  return kind;
}
const EVP_MD* md5() {
  static const EVP_MD* const kind = EVP_MD_fetch(nullptr, "MD5", nullptr);
  return kind;
}
const EVP_CIPHER* aes128_ecb() {
  static const EVP_CIPHER* const kind = EVP_CIPHER_fetch(nullptr, "AES-128-ECB", nullptr);
  return kind;
}
const EVP_CIPHER* aes128_gcm() {
  static const EVP_CIPHER* const kind = EVP_CIPHER_fetch(nullptr, "AES-128-GCM", nullptr);
  return kind;
}

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

// One of each kind a thread: making one costs more than a short hash or a packet's decryption.
template <class Context, Context* (*create)()>
Context* context() {
  static thread_local const std::unique_ptr<Context, FreeContext> kept(create());
  if (!kept) throw std::bad_alloc();
  return kept.get();
}
EVP_MD_CTX* digest_context() { return context<EVP_MD_CTX, EVP_MD_CTX_new>(); }
EVP_CIPHER_CTX* cipher_context() { return context<EVP_CIPHER_CTX, EVP_CIPHER_CTX_new>(); }

// The size of the digest, 0 if there is none.
unsigned digest(const EVP_MD* kind, Bytes message, uint8_t* out) {
  unsigned size = 0;
  EVP_MD_CTX* const context = digest_context();
  const bool done = EVP_DigestInit_ex2(context, kind, nullptr) == 1 &&
                    EVP_DigestUpdate(context, message.data(), message.size()) == 1 &&
                    EVP_DigestFinal_ex(context, out, &size) == 1;
  return done ? size : 0;
}

std::string digest_hex(const EVP_MD* kind, std::string_view text) {
  uint8_t out[EVP_MAX_MD_SIZE];
  const unsigned size = digest(kind, {reinterpret_cast<const uint8_t*>(text.data()), text.size()}, out);
  return hex_of({out, size});
}

}  // namespace

std::string md5_hex(std::string_view text) { return md5() ? digest_hex(md5(), text) : std::string(); }
std::string sha256_hex(std::string_view text) { return digest_hex(sha256(), text); }

Sha256 hmac_sha256(Bytes key, Bytes message) {
  // HMAC by hand (RFC 2104), keys up to one block: HMAC() looks its algorithm up in every call.
  uint8_t inner[64 + 256] = {}, outer[64 + 32] = {};
  const size_t n_key = std::min<size_t>(key.size(), 64), n_message = std::min<size_t>(message.size(), 256);
  std::copy_n(key.data(), n_key, inner);
  std::copy_n(key.data(), n_key, outer);
  for (int i = 0; i < 64; ++i) {
    inner[i] ^= 0x36;
    outer[i] ^= 0x5c;
  }
  std::copy_n(message.data(), n_message, inner + 64);
  digest(sha256(), {inner, 64 + n_message}, outer + 64);
  Sha256 out{};
  digest(sha256(), outer, out.data());
  return out;
}

std::array<uint8_t, 32> hkdf_expand_label(Bytes secret, std::string_view label, size_t size) {
  constexpr std::string_view kPrefix = "tls13 ";
  std::vector<uint8_t> info = {static_cast<uint8_t>(size >> 8), static_cast<uint8_t>(size),
                               static_cast<uint8_t>(kPrefix.size() + label.size())};
  info.insert(info.end(), kPrefix.begin(), kPrefix.end());
  info.insert(info.end(), label.begin(), label.end());
  info.push_back(0);  // no context
  info.push_back(1);  // first and only block of HKDF-Expand
  return hmac_sha256(secret, info);
}

std::array<uint8_t, 16> aes128_block(const Aes128Key& key, const uint8_t block[16]) {
  std::array<uint8_t, 16> out{};
  EVP_CIPHER_CTX* const context = cipher_context();
  int size = 0;
  if (EVP_EncryptInit_ex2(context, aes128_ecb(), key.data(), nullptr, nullptr) == 1) {
    EVP_EncryptUpdate(context, out.data(), &size, block, 16);
  }
  return out;
}

bool aes128_gcm_open(const Aes128Key& key, const std::array<uint8_t, 12>& nonce, Bytes associated, Bytes sealed,
                     std::vector<uint8_t>& plain) {
  constexpr size_t kTag = 16;
  if (sealed.size() < kTag) return false;
  const Bytes text = sealed.first(sealed.size() - kTag);
  uint8_t tag[kTag];
  std::copy_n(sealed.data() + text.size(), kTag, tag);
  plain.resize(text.size());
  EVP_CIPHER_CTX* const context = cipher_context();
  int size = 0;
  uint8_t nothing[16];
  return EVP_DecryptInit_ex2(context, aes128_gcm(), key.data(), nonce.data(), nullptr) == 1 &&
         EVP_DecryptUpdate(context, nullptr, &size, associated.data(), static_cast<int>(associated.size())) == 1 &&
         EVP_DecryptUpdate(context, plain.data(), &size, text.data(), static_cast<int>(text.size())) == 1 &&
         EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, kTag, tag) == 1 &&
         EVP_DecryptFinal_ex(context, nothing, &size) == 1;
}

}  // namespace meshsieve::app
