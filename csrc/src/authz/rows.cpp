#include <arpa/inet.h>

#include <charconv>
#include <cstring>

#include "authz/peer_index.h"
#include "meshsieve/authz_table.h"

namespace meshsieve::authz {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\n\r\v\f";
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

Address parsed(std::string_view text) {
  const size_t zone = text.find('%');
  if (zone != std::string_view::npos) {
    if (zone + 1 == text.size() || text.find(':') == std::string_view::npos) return {};
    text = text.substr(0, zone);
  }
  const std::string copy(text);
  uint8_t bytes[16];
  if (::inet_pton(AF_INET, copy.c_str(), bytes) == 1 && zone == std::string_view::npos)
    return {{0, uint64_t{bytes[0]} << 24 | uint64_t{bytes[1]} << 16 | uint64_t{bytes[2]} << 8 | bytes[3]}, 4};
  if (copy.find('\0') != std::string::npos || ::inet_pton(AF_INET6, copy.c_str(), bytes) != 1) return {};
  const auto word = [&](int i) {
    uint64_t out = 0;
    for (int k = 0; k < 8; ++k) out = out << 8 | bytes[i + k];
    return out;
  };
  return address_of({word(0), word(8)}, 6);
}

}  // namespace

Address address_of(U128 value, uint8_t version) {
  if (version == 6 && value.hi == 0 && value.lo >> 32 == 0xffff) return {{0, value.lo & 0xffffffffu}, 4};
  return {value, version};
}

Address forwarded_for(const AuthzTable& table, const RequestView& view, int32_t trusted_proxies, Address missing) {
  const int32_t slot = table.header_names().find("x-forwarded-for");
  std::vector<std::string_view> hops;
  for (const HeaderLine& line : view.headers) {
    if (line.slot != slot) continue;
    for (size_t begin = 0; begin <= line.value.size();) {
      const size_t end = std::min(line.value.find(',', begin), line.value.size());
      hops.push_back(trimmed(line.value.substr(begin, end - begin)));
      begin = end + 1;
    }
  }
  const auto wanted = static_cast<size_t>(trusted_proxies);
  if (hops.size() < wanted) return missing;
  const Address found = parsed(hops[hops.size() - wanted]);
  return found.version == 0 ? missing : found;
}

void decide_rows(const AuthzTable& table, const RequestBatch& batch, const AuthzOptions& options, const uint32_t* chain,
                 bool one_chain, std::span<const Context> contexts, size_t begin, size_t end, AuthzScratch& scratch,
                 const AuthzColumns& out) {
  const BatchReader reader(batch, options.http, table.header_names());
  FactsScratch memory;
  memory.peer = kScheme;
  const auto address = [&](RequestAddress which, size_t row) {
    const AddressColumn& column = batch.address[static_cast<size_t>(which)];
    if (column.ip_ver == nullptr || column.ip_ver[row] == 0) return Address{};
    return address_of(column.address[row], column.ip_ver[row]);
  };
  for (size_t row = begin; row < end; ++row) {
    const uint32_t number = chain[one_chain ? 0 : row];
    const bool tcp = table.is_tcp(number);
    Facts facts;
    Refused refused = Refused::no;
    if (!tcp) {
      refused = reader.read(row, memory.view, memory.request);
      table.add_pseudo_headers(memory.view, memory.request);
      facts.http = &memory.view;
    }
    Verdict verdict;
    int32_t* found = out.found == nullptr ? nullptr : out.found + row * out.width;
    if (refused == Refused::no) {
      std::string_view text;
      if (batch[RequestText::principal].get(row, text)) {
        memory.peer.resize(kScheme.size());
        memory.peer.append(text);
        facts.peer = memory.peer;
      }
      if (batch[RequestText::sni].get(row, text)) facts.sni = text.data() == nullptr ? std::string_view("") : text;
      facts.source_ip = address(RequestAddress::source_ip, row);
      facts.destination_ip = address(RequestAddress::destination_ip, row);
      facts.remote_ip = address(RequestAddress::remote_ip, row);
      if (facts.remote_ip.version == 0) {
        facts.remote_ip = options.trusted_proxies > 0 && !tcp
                              ? forwarded_for(table, memory.view, options.trusted_proxies, facts.source_ip)
                              : facts.source_ip;
      }
      facts.destination_port = batch.number_or(RequestNumber::destination_port, row, -1);
      const auto context = static_cast<size_t>(batch.number_or(RequestNumber::context, row, 0));
      if (context < contexts.size()) facts.context = &contexts[context];
      verdict = table.decide(number, facts, scratch, found);
    } else {
      verdict.allowed = false;
      if (found != nullptr) std::fill(found, found + out.width, kNotReached);
    }
    if (out.allowed != nullptr) out.allowed[row] = verdict.allowed;
    if (out.refused != nullptr) out.refused[row] = static_cast<uint8_t>(refused);
    if (out.step != nullptr) out.step[row] = verdict.step;
    if (out.rule != nullptr) out.rule[row] = verdict.rule;
    if (out.audit != nullptr) out.audit[row] = verdict.audit;
    if (out.pending != nullptr) out.pending[row] = verdict.pending;
    if (out.asked != nullptr) out.asked[row] = verdict.asked;
  }
}

}  // namespace meshsieve::authz
