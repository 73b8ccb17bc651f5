#include "meshsieve/apps.h"

#include <algorithm>

namespace meshsieve {

const std::array<NameAndDoc, static_cast<size_t>(App::built_in)> kApps = {{
#define APP(identifier, name, doc) {name, doc},
#include "meshsieve/apps.def"
#undef APP
}};

const std::array<NameAndDoc, kAttributeCount> kAttributes = {{
#define ATTRIBUTE(name, doc) {#name, doc},
#include "meshsieve/app_attributes.def"
#undef ATTRIBUTE
}};

void Attributes::set(Attribute attribute, std::string_view text) {
  if (text.empty() || has(attribute)) return;
  text = text.substr(0, kMaxText);
  if (packed_.size() + 3 + text.size() > kMaxBytes) return;
  packed_ += static_cast<char>(attribute);
  packed_ += static_cast<char>(text.size() >> 8);
  packed_ += static_cast<char>(text.size());
  packed_ += text;
}

void Attributes::replace(Attribute attribute, std::string_view text) {
  for (size_t at = 0; at < packed_.size(); at += 3 + size_at(at)) {
    if (static_cast<Attribute>(packed_[at]) != attribute) continue;
    packed_.erase(at, 3 + size_at(at));
    break;
  }
  set(attribute, text);
}

std::string_view Attributes::get(Attribute attribute) const {
  for (size_t at = 0; at < packed_.size(); at += 3 + size_at(at)) {
    if (static_cast<Attribute>(packed_[at]) == attribute) return std::string_view(packed_).substr(at + 3, size_at(at));
  }
  return {};
}

App app_of_protocol(uint8_t proto) {
  switch (proto) {
    case 1: return App::icmp;
    case 2: return App::igmp;
    case 47: return App::gre;
    case 50:
    case 51: return App::ipsec;
    case 58: return App::icmpv6;
    case 88: return App::eigrp;
    case 89: return App::ospf;
    case 103: return App::pim;
    case 112: return App::vrrp;
    case 115: return App::l2tp;
    case 132: return App::sctp;
    default: return App::unknown;
  }
}

}  // namespace meshsieve
