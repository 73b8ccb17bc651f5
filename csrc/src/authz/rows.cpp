#include <arpa/inet.h>

#include <algorithm>
#include <string>
#include <vector>

#include "authz/peer_index.h"
#include "authz/table_state.h"

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

namespace {

constexpr size_t kAtOnce = 8;

// A row on its way.
struct Row {
  size_t row;
  uint32_t chain;
  Refused refused;
  Facts facts;
  FactsScratch memory;
  AuthzScratch scratch;
};

class RowReader {
 public:
  RowReader(const AuthzTable& table, const RequestBatch& batch, const AuthzOptions& options,
            std::span<const Context> contexts)
      : table_(table), batch_(batch), options_(options), contexts_(contexts),
        reader_(batch, options.http, table.header_names()) {}

  void read(Row& out) const {
    const bool tcp = table_.is_tcp(out.chain);
    out.facts = {};
    out.refused = Refused::no;
    if (!tcp) {
      out.refused = reader_.read(out.row, out.memory.view, out.memory.request);
      if (out.refused != Refused::no) return;
      table_.add_pseudo_headers(out.memory.view, out.memory.request);
      out.facts.http = &out.memory.view;
    }
    std::string_view text;
    if (batch_[RequestText::principal].get(out.row, text)) {
      if (text.starts_with(kScheme)) text.remove_prefix(kScheme.size());
      out.memory.peer = kScheme;
      out.memory.peer.append(text);
      out.facts.peer = out.memory.peer;
    }
    if (batch_[RequestText::sni].get(out.row, text)) out.facts.sni = text.data() == nullptr ? std::string_view("") : text;
    out.facts.source_ip = address(RequestAddress::source_ip, out.row);
    out.facts.destination_ip = address(RequestAddress::destination_ip, out.row);
    out.facts.remote_ip = address(RequestAddress::remote_ip, out.row);
    if (out.facts.remote_ip.version == 0) {
      out.facts.remote_ip = options_.trusted_proxies > 0 && !tcp
                                ? forwarded_for(table_, out.memory.view, options_.trusted_proxies, out.facts.source_ip)
                                : out.facts.source_ip;
    }
    out.facts.destination_port = batch_.number_or(RequestNumber::destination_port, out.row, -1);
    const auto context = static_cast<size_t>(batch_.number_or(RequestNumber::context, out.row, 0));
    if (context < contexts_.size()) out.facts.context = &contexts_[context];
  }

 private:
  Address address(RequestAddress which, size_t row) const {
    const AddressColumn& column = batch_.address[static_cast<size_t>(which)];
    if (column.ip_ver == nullptr || column.ip_ver[row] == 0) return {};
    return address_of(column.address[row], column.ip_ver[row]);
  }

  const AuthzTable& table_;
  const RequestBatch& batch_;
  const AuthzOptions& options_;
  std::span<const Context> contexts_;
  BatchReader reader_;
};

void write(const Row& row, const Verdict& verdict, const AuthzColumns& out) {
  const size_t i = row.row;
  if (out.allowed != nullptr) out.allowed[i] = verdict.allowed;
  if (out.refused != nullptr) out.refused[i] = static_cast<uint8_t>(row.refused);
  if (out.step != nullptr) out.step[i] = verdict.step;
  if (out.rule != nullptr) out.rule[i] = verdict.rule;
  if (out.audit != nullptr) out.audit[i] = verdict.audit;
  if (out.pending != nullptr) out.pending[i] = verdict.pending;
  if (out.asked != nullptr) out.asked[i] = verdict.asked;
}

}  // namespace

void decide_rows(const AuthzTable& table, const RequestBatch& batch, const AuthzOptions& options, const uint32_t* chain,
                 bool one_chain, std::span<const Context> contexts, size_t begin, size_t end, const AuthzColumns& out) {
  const AuthzTable::State& state = table.state();
  const RowReader reader(table, batch, options, contexts);
  std::vector<Row> rows(std::min(kAtOnce, end - begin));
  for (size_t first = begin; first < end; first += rows.size()) {
    const std::span<Row> block(rows.data(), std::min(rows.size(), end - first));
    for (size_t i = 0; i < block.size(); ++i) {
      Row& row = block[i];
      row.row = first + i;
      row.chain = chain[one_chain ? 0 : row.row];
      reader.read(row);
      if (row.refused == Refused::no) state.tests.start(row.facts, table.is_tcp(row.chain), row.scratch.state());
    }
    for (Row& row : block)
      if (row.refused == Refused::no) state.tests.look_up(row.scratch.state());
    for (Row& row : block) {
      if (row.refused != Refused::no) continue;
      state.tests.finish(row.facts, table.is_tcp(row.chain), row.scratch.state());
      state.prefetch_lists(state.chains[row.chain], row.scratch.state());
    }
    for (Row& row : block) {
      Verdict verdict;
      if (row.refused == Refused::no) {
        verdict = state.judge(state.chains[row.chain], row.facts, row.scratch.state(), nullptr);
      } else {
        verdict.allowed = false;
      }
      write(row, verdict, out);
    }
  }
}

}  // namespace meshsieve::authz
