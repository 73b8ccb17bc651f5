#include "app/x509.h"

#include <algorithm>
#include <array>
#include <unordered_set>
#include <utility>

#include "app/der.h"
#include "meshsieve/apps.h"

namespace meshsieve::app {

namespace {

constexpr uint8_t kSequence = 0x30, kSet = 0x31, kOid = 0x06, kOctets = 0x04, kBoolean = 0x01;
constexpr std::string_view kCommonName("\x55\x04\x03", 3), kSubjectAltName("\x55\x1d\x11", 3);

// Names in the order in which they stand, each once; no more than an attribute has room for.
class Names {
 public:
  void add(Bytes name) {
    const std::string_view text = text_of(name);
    if (text.empty() || joined_.size() > Attributes::kMaxText || !is_new(text)) return;
    if (!joined_.empty()) joined_ += ',';
    joined_ += text;
  }
  std::string take() { return std::move(joined_); }

 private:
  // A set only for what has many names: most certificates have two or three.
  bool is_new(std::string_view text) {
    const auto first = first_.begin(), end = first + static_cast<ptrdiff_t>(n_first_);
    if (std::find(first, end, text) != end) return false;
    if (n_first_ == first_.size()) return others_.insert(text).second;
    first_[n_first_++] = text;
    return true;
  }

  std::array<std::string_view, 8> first_;
  size_t n_first_ = 0;
  std::unordered_set<std::string_view> others_;
  std::string joined_;
};

void subject_names(Bytes subject, Names& names) {
  Reader sets(subject);
  for (Element set; (set = expect_element(sets, kSet)).ok;) {
    Reader attributes(set.body);
    for (Element attribute; (attribute = expect_element(attributes, kSequence)).ok;) {
      Reader pair(attribute.body);
      const Element oid = expect_element(pair, kOid);
      if (oid.ok && text_of(oid.body) == kCommonName) names.add(read_element(pair).body);
    }
  }
}

void alternative_names(Bytes extensions, Names& names) {
  constexpr uint8_t kDnsName = 0x82;
  Reader list(extensions);
  for (Element extension; (extension = expect_element(list, kSequence)).ok;) {
    Reader parts(extension.body);
    const Element oid = expect_element(parts, kOid);
    if (!oid.ok || text_of(oid.body) != kSubjectAltName) continue;
    Element value = read_element(parts);
    if (value.ok && value.tag == kBoolean) value = read_element(parts);
    if (!value.ok || value.tag != kOctets) continue;
    Reader wrapped(value.body);
    Reader general(expect_element(wrapped, kSequence).body);
    for (Element name; (name = read_element(general)).ok;) {
      if (name.tag == kDnsName) names.add(name.body);
    }
  }
}

}  // namespace

std::string certificate_names(Bytes der) {
  Reader outer(der);
  Reader certificate(expect_element(outer, kSequence).body);
  Reader tbs(expect_element(certificate, kSequence).body);
  Names names;
  // version [0], serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, ..., extensions [3]
  Element element = read_element(tbs);
  if (element.ok && element.tag == 0xa0) element = read_element(tbs);
  for (int i = 0; i < 3 && element.ok; ++i) element = read_element(tbs);
  if (!element.ok) return {};
  element = expect_element(tbs, kSequence);
  if (!element.ok) return {};
  subject_names(element.body, names);
  while ((element = read_element(tbs)).ok) {
    if (element.tag != 0xa3) continue;
    Reader wrapped(element.body);
    alternative_names(expect_element(wrapped, kSequence).body, names);
  }
  return names.take();
}

}  // namespace meshsieve::app
