// Relational data bases: MySQL, PostgreSQL, SQL Server, Oracle, DB2; with their switch to TLS.
//
// Source  MySQL: dev.mysql.com, Client/Server Protocol; PostgreSQL manual, chapter "Frontend/Backend Protocol";
//         MS-TDS, MC-SQLR; Oracle TNS: what its packets are known to hold; DRDA: The Open Group, DDM architecture
#include "app/dissectors.h"
#include "app/handshake.h"
#include "app/text.h"

namespace meshsieve::app {

namespace {

using namespace std::string_view_literals;

// Both sides' TLS from given offsets on; true once both hellos are known.
bool read_tls(Bytes client, Bytes server, Findings& out) {
  const TlsProgress one = client.empty() ? TlsProgress{} : read_tls_stream(client, out.attributes);
  const TlsProgress two = server.empty() ? TlsProgress{} : read_tls_stream(server, out.attributes);
  if (one.answer == Answer::yes || two.answer == Answer::yes) out.attributes.set(Attribute::starttls, "yes");
  return one.client_hello && two.server_hello && two.past_clear;
}

Bytes from(Bytes bytes, size_t at) { return at < bytes.size() ? bytes.subspan(at) : Bytes{}; }

// ---- MySQL

// The server's greeting; its size with header, 0 if it is none or not whole.
size_t mysql_greeting(Bytes bytes, Attributes& out) {
  Reader reader(bytes);
  const uint32_t size = reader.le24();
  const uint8_t sequence = reader.u8(), version = reader.u8();
  if (!reader.ok() || sequence != 0 || size < 8 || size > 1024) return 0;
  if (version == 0xff) {  // an error instead, such as a host that is not allowed
    const uint16_t code = reader.le16();
    return reader.ok() && code >= 1000 && code < 5000 && size <= bytes.size() - 4 ? size + 4u : 0;
  }
  if (version != 10 && version != 9) return 0;
  const std::string_view text = text_of(reader.rest());
  const size_t end = text.find('\0');
  if (end == std::string_view::npos || end < 3 || end > 80 || !is_digit(text[0]) || text.find('.') > end) return 0;
  if (!is_plain_text(text.substr(0, end))) return 0;
  out.set(Attribute::server_software, text.substr(0, end));
  return size + 4u;
}

struct MysqlLogin {
  bool fits = false;
  size_t tls_at = 0;  // where TLS begins, 0 = it does not
};

// The client's answer: capabilities, largest packet, character set, 23 bytes of zero (19 and 4 more in MariaDB).
MysqlLogin mysql_login(Bytes bytes) {
  MysqlLogin out;
  Reader reader(bytes);
  const uint32_t size = reader.le24();
  const uint8_t sequence = reader.u8();
  const uint32_t capabilities = reader.le32();
  if (!reader.ok() || sequence != 1 || size < 32 || size > 4096) return out;
  reader.skip(5);
  for (const uint8_t byte : reader.bytes(19)) {
    if (byte != 0) return out;
  }
  if (!reader.ok() || (capabilities & 0x200) == 0) return out;  // CLIENT_PROTOCOL_41
  out.fits = true;
  if (size == 32 && (capabilities & 0x800) != 0) out.tls_at = 36;  // CLIENT_SSL and nothing more
  return out;
}

Answer mysql(const Payload& p, Findings& out) {
  if (p.here.size() < 5) return Answer::more;
  const bool known = out.app == App::mysql;
  const size_t greeting = mysql_greeting(p.here, out.attributes);
  const size_t greeting_there = greeting == 0 ? mysql_greeting(p.there, out.attributes) : 0;
  const MysqlLogin login = mysql_login(greeting != 0 ? p.there : p.here);
  if (!known && greeting == 0 && !login.fits) {
    Reader reader(p.here);
    const uint32_t size = reader.le24();
    const uint8_t sequence = reader.u8(), version = reader.u8();
    const bool could = size >= 8 && size <= 1024 && ((sequence == 0 && (version == 10 || version == 9)) || (sequence == 1 && size >= 32));
    return could && p.here.size() < std::min<size_t>(size + 4u, 100) ? Answer::more : Answer::no;
  }
  out.app = App::mysql;
  if (login.tls_at != 0) {
    const size_t server_at = std::max(greeting, greeting_there);
    const bool done = greeting != 0 ? read_tls(from(p.there, login.tls_at), from(p.here, server_at), out)
                                    : read_tls(from(p.here, login.tls_at), from(p.there, server_at), out);
    out.done = done;
  } else if (login.fits) {
    out.done = greeting != 0 || greeting_there != 0;
  }
  return Answer::yes;
}

// ---- PostgreSQL

enum class PgStart : uint8_t { none, startup, tls, other };

PgStart pg_start(Bytes bytes, Attributes& out) {
  constexpr uint32_t kVersion3 = 3 << 16, kCancel = 80877102, kTls = 80877103, kGss = 80877104;
  Reader reader(bytes);
  const uint32_t size = reader.u32(), code = reader.u32();
  if (!reader.ok()) return PgStart::none;
  if (size == 8 && code == kTls) return PgStart::tls;
  if ((size == 8 && code == kGss) || (size == 16 && code == kCancel)) return PgStart::other;
  if (code >> 16 != 3 || code > kVersion3 + 2 || size < 9 || size > 10000) return PgStart::none;
  std::string_view text = text_of(reader.up_to(size - 8));
  bool user = false;
  while (!text.empty()) {
    const size_t name_end = text.find('\0');
    if (name_end == std::string_view::npos || name_end == 0) break;
    const std::string_view name = text.substr(0, name_end);
    text.remove_prefix(name_end + 1);
    const size_t value_end = text.find('\0');
    if (value_end == std::string_view::npos) break;
    if (name == "user") user = true;
    if (name == "database") out.set(Attribute::service, text.substr(0, value_end));
    if (name == "application_name") out.set(Attribute::client_software, text.substr(0, value_end));
    text.remove_prefix(value_end + 1);
  }
  return user ? PgStart::startup : PgStart::none;
}

// Authentication request, or error with severity: what a server begins with.
bool is_pg_answer(Bytes bytes) {
  Reader reader(bytes);
  const uint8_t type = reader.u8();
  const uint32_t size = reader.u32();
  if (!reader.ok()) return false;
  if (type == 'R') {
    const uint32_t code = reader.u32();
    return reader.ok() && code <= 12 && size >= 8 && size < 2048 && (code != 0 || size == 8);
  }
  return type == 'E' && size < 4096 && begins(reader.rest(), "S");
}

// A message of the client after the start: a query as text, or a statement to parse.
bool is_pg_query(Bytes bytes) {
  Reader reader(bytes);
  const uint8_t type = reader.u8();
  const uint32_t size = reader.u32();
  if (!reader.ok() || size < 5 || size > 1 << 20) return false;
  const Bytes body = reader.bytes(size - 4);
  if (!reader.ok() || body.back() != 0) return false;
  return type == 'Q' && is_plain_text(text_of(body.first(body.size() - 1)));
}

Answer postgresql(const Payload& p, Findings& out) {
  if (p.here.size() < 8 && p.here[0] == 0) return Answer::more;
  const bool known = out.app == App::postgresql;
  PgStart start = pg_start(p.here, out.attributes);
  const bool here_starts = start != PgStart::none;
  if (!here_starts) start = pg_start(p.there, out.attributes);
  const bool answer = is_pg_answer(p.here);
  if (!known && start == PgStart::none) {
    Reader reader(p.here);
    const uint32_t size = reader.u32();
    const bool startup = p.here[0] == 0 && size >= 9 && size <= 10000 && reader.u16() == 3 && reader.u16() <= 2;
    const bool message = p.here[0] != 0 && p.here.size() < 12;
    if ((startup && p.here.size() < size) || (message && !answer)) return Answer::more;
    if (!answer && !is_pg_query(p.here)) return Answer::no;
    out.app = App::postgresql;
    return answer && p.here[0] == 'R' ? Answer::yes : Answer::likely;
  }
  out.app = App::postgresql;
  const Bytes client = here_starts ? p.here : p.there, server = here_starts ? p.there : p.here;
  if (start == PgStart::tls) {
    out.done = begins(server, "S") && read_tls(from(client, 8), from(server, 1), out);
    pg_start(from(client, 8), out.attributes);  // refused, and gone on with in clear
  } else {
    out.done = !server.empty();
  }
  return Answer::yes;
}

// ---- Microsoft SQL Server

// The TDS packets at the start of a direction: their kinds, and what is inside PRELOGIN packets behind the first.
struct Tds {
  uint8_t first = 0;
  Bytes body;  // of the first packet, as much as there is
  bool whole = false;
  std::vector<uint8_t> inside;
};

std::optional<Tds> read_tds(Bytes bytes) {
  constexpr size_t kMaxPackets = 16;
  Tds out;
  Reader reader(bytes);
  for (size_t i = 0; i < kMaxPackets && reader.left() >= 8; ++i) {
    const uint8_t type = reader.u8(), status = reader.u8();
    const uint16_t size = reader.u16();
    reader.skip(2);
    const uint8_t number = reader.u8(), window = reader.u8();
    const bool known = (type >= 1 && type <= 4) || type == 6 || type == 7 || type == 8 || (type >= 14 && type <= 18);
    // A packet that is not the last of its message fills the packet size, which is 512 at least.
    if (!known || status > 0x1f || size < 8 || window != 0 || number > 64 || ((status & 1) == 0 && size < 512)) break;
    const Bytes body = reader.up_to(size - 8u);
    if (out.first == 0) {
      out.first = type;
      out.body = body;
      out.whole = body.size() == size - 8u;
    } else if (type == 18) {
      out.inside.insert(out.inside.end(), body.begin(), body.end());
    }
  }
  if (out.first == 0) return std::nullopt;
  return out;
}

// Options of PRELOGIN: token, offset, length; 0xff ends them.
bool is_prelogin(Bytes body) {
  Reader reader(body);
  size_t n = 0;
  for (;; ++n) {
    const uint8_t token = reader.u8();
    if (!reader.ok()) return false;
    if (token == 0xff) break;
    const uint16_t offset = reader.u16(), size = reader.u16();
    if (token > 8 || offset > 4096 || size > 1024) return false;
  }
  return n != 0;
}

bool is_tds_answer(Bytes body) {
  if (is_prelogin(body)) return true;
  constexpr std::string_view kTokens = "\x79\x81\x88\xa4\xa5\xa9\xaa\xab\xac\xad\xd1\xd2\xe3\xe4\xe5\xed\xee\xfd\xfe\xff"sv;
  return !body.empty() && kTokens.find(static_cast<char>(body[0])) != std::string_view::npos;
}

// SQL text in UTF-16 behind the header block, or a procedure's name or number.
bool is_tds_request(const Tds& tds) {
  Reader reader(tds.body);
  switch (tds.first) {
    case 16: return reader.le32() >= 94 && (reader.le32() >> 24 & 0xf0) == 0x70;
    case 1: {
      const Bytes body = tds.body;
      if (body.size() < 4) return false;
      const uint32_t headers = reader.le32();
      const size_t at = headers >= 4 && headers <= 256 && headers <= body.size() ? headers : 0;
      return at + 2 <= body.size() && body[at] >= 9 && body[at] < 0x7f && body[at + 1] == 0;
    }
    case 3: return tds.body.size() >= 4;
    case 6: return tds.body.empty();
    case 14: return tds.body.size() >= 4;
    case 2: return tds.body.size() >= 8;  // TDS 4.2 and 5.0 login
    default: return false;
  }
}

Answer mssql(const Payload& p, Findings& out) {
  if (p.here.size() < 8) return Answer::more;
  const auto here = read_tds(p.here), there = read_tds(p.there);
  if (!here) return Answer::no;
  const bool prelogin = here->first == 18 && is_prelogin(here->body);
  const bool answer = here->first == 4 && is_tds_answer(here->body);
  const bool request = is_tds_request(*here);
  if (!prelogin && !answer && !request) return here->body.size() < 8 ? Answer::more : Answer::no;
  out.app = App::mssql;
  if (here->first == 18 || (there && there->first == 18)) {
    const Bytes client = here->first == 18 ? here->inside : there->inside;
    const Bytes server = here->first == 18 ? (there ? Bytes(there->inside) : Bytes{}) : Bytes(here->inside);
    out.done = read_tls(client, server, out);
  }
  if (prelogin || here->first == 16) return Answer::yes;
  const bool pair = there && (answer ? is_tds_request(*there) : there->first == 4);
  return pair ? Answer::yes : Answer::likely;
}

Answer sql_browser(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint8_t type = reader.u8();
  bool fits = false;
  if (type == 5) {
    const uint16_t size = reader.le16();
    fits = reader.ok() && size == reader.left() && begins(reader.rest(), "ServerName;");
  } else if (p.there_port == 1434) {
    const std::string_view name = text_of(reader.rest());
    fits = type <= 3 ? reader.empty() : type == 4 && !name.empty() && name.size() <= 33 && name.back() == '\0';
  }
  if (!fits) return Answer::no;
  out.app = App::mssql;
  out.done = type == 5;
  return Answer::yes;
}

// ---- Oracle

std::string_view tns_value(std::string_view text, std::string_view key) {
  const auto at = std::search(text.begin(), text.end(), key.begin(), key.end(), [](char a, char b) { return lower(a) == lower(b); });
  if (at == text.end()) return {};
  const std::string_view rest = text.substr(static_cast<size_t>(at - text.begin()) + key.size());
  return rest.find(')') == std::string_view::npos ? ""sv : trimmed(word(rest, ")"));
}

Answer oracle(const Payload& p, Findings& out) {
  constexpr uint8_t kConnect = 1, kAccept = 2, kRefuse = 4, kRedirect = 5, kData = 6, kResend = 11, kMarker = 12;
  Reader reader(p.here);
  const uint16_t size = reader.u16(), checksum = reader.u16();
  const uint8_t type = reader.u8(), flags = reader.u8();
  const uint16_t header_checksum = reader.u16();
  if (!reader.ok()) return p.here[0] < 0x20 ? Answer::more : Answer::no;
  if (size < 8 || checksum != 0 || header_checksum != 0 || flags > 0x40) return Answer::no;
  const std::string_view body = text_of(reader.rest());
  const bool known = out.app == App::oracle;
  bool sure = false, fits = false;
  switch (type) {
    case kConnect: {
      const uint16_t version = reader.u16(), compatible = reader.u16();
      fits = reader.ok() && version >= 300 && version < 400 && compatible >= 200 && compatible <= version;
      sure = fits && size >= 26;
      break;
    }
    case kAccept: {
      const uint16_t version = reader.u16();
      sure = fits = reader.ok() && version >= 300 && version < 400 && size >= 24 && size < 256;
      break;
    }
    case kRefuse:
    case kRedirect: sure = fits = body.find("(DESCRIPTION") != std::string_view::npos || body.find("(ADDRESS") != std::string_view::npos; break;
    case kResend: fits = size == 8; break;
    case kMarker: fits = size == 11; break;
    case kData: fits = size >= 10; break;
    default: break;
  }
  if (!fits) return known ? Answer::yes : !reader.ok() && p.here.size() < size ? Answer::more : Answer::no;
  out.app = App::oracle;
  for (const std::string_view text : {text_of(p.here), text_of(p.there)}) {
    if (const std::string_view name = tns_value(text, "(SERVICE_NAME="); !name.empty()) out.attributes.set(Attribute::service, name);
    if (const std::string_view name = tns_value(text, "(SID="); !name.empty()) out.attributes.set(Attribute::service, name);
    if (const std::string_view name = tns_value(text, "(PROGRAM="); !name.empty()) out.attributes.set(Attribute::client_software, name);
  }
  out.done = out.attributes.has(Attribute::service) && !p.there.empty();
  return sure ? Answer::yes : Answer::likely;
}

// ---- DB2

Answer db2(const Payload& p, Findings& out) {
  Reader reader(p.here);
  const uint16_t size = reader.u16();
  const uint8_t magic = reader.u8();
  reader.skip(3);
  const uint16_t inner = reader.u16();
  if (!reader.ok()) return p.here.size() < 3 || magic == 0xd0 ? Answer::more : Answer::no;
  if (magic != 0xd0 || size < 10 || inner != size - 6) return Answer::no;
  out.app = App::db2;
  out.done = true;
  return Answer::yes;
}

}  // namespace

void add_databases(Registry& registry) {
  registry.push_back({App::mysql, kTcp, any_byte(), &mysql});
  registry.push_back({App::postgresql, kTcp, bytes_of("\0RESNQ"sv), &postgresql});
  registry.push_back({App::mssql, kTcp, byte_range(1, 18), &mssql});
  registry.push_back({App::mssql, kUdp, byte_range(2, 5), &sql_browser});
  registry.push_back({App::oracle, kTcp, byte_range(0, 0x20), &oracle});
  registry.push_back({App::db2, kTcp, any_byte(), &db2});
}

}  // namespace meshsieve::app
