// Text protocols whose server greets: SMTP, POP3, IMAP, NNTP, FTP, and IRC and XMPP; with their switch to TLS.
//
// Confirms  a greeting together with what it says of itself or with a command of the client; a greeting alone is likely
// TLS       begins where a line of the clear dialogue would: the records behind it are read for their names
// FTP       PORT, EPRT, 227 and 229 announce the data channel; the control channel is followed to its end
// Source    RFC 5321, 3207, 1939, 2595, 9051, 3977, 959, 2428, 4217, 2812, 6120
#include <array>

#include "app/dissectors.h"
#include "app/handshake.h"
#include "app/text.h"

namespace meshsieve::app {

namespace {

// From the first line that begins as a TLS record does.
Bytes tls_behind_text(Bytes bytes) {
  // Text hardly has the byte that a handshake record begins with, but many line ends.
  const std::string_view text = text_of(bytes);
  for (size_t at = 0; (at = text.find('\x16', at)) != std::string_view::npos; ++at) {
    if (at != 0 && text[at - 1] == '\n' && text.substr(at + 1).starts_with('\x03')) return bytes.subspan(at);
  }
  return {};
}

// Reads TLS behind the dialogue, if it has come to that. True once both hellos are known.
bool read_switch(const Payload& p, Findings& out) {
  const Bytes here = tls_behind_text(p.here), there = tls_behind_text(p.there);
  const TlsProgress one = here.empty() ? TlsProgress{} : read_tls_stream(here, out.attributes);
  const TlsProgress two = there.empty() ? TlsProgress{} : read_tls_stream(there, out.attributes);
  if (one.answer == Answer::yes || two.answer == Answer::yes) out.attributes.set(Attribute::starttls, "yes");
  return (one.client_hello || two.client_hello) && (one.server_hello || two.server_hello) &&
         (one.server_hello ? one : two).past_clear;
}

// "220 text" or "220-text"
bool is_reply(std::string_view line) {
  return line.size() >= 3 && is_digit(line[0]) && is_digit(line[1]) && is_digit(line[2]) && line[0] >= '1' &&
         line[0] <= '5' && (line.size() == 3 || line[3] == ' ' || line[3] == '-');
}

template <size_t N>
bool has_command(std::string_view line, const std::array<std::string_view, N>& commands) {
  const std::string_view verb = word(line);
  return std::any_of(commands.begin(), commands.end(), [&](auto command) { return equals_nocase(verb, command); });
}

bool contains_nocase(std::string_view text, std::string_view part) {
  return std::search(text.begin(), text.end(), part.begin(), part.end(),
                     [](char a, char b) { return lower(a) == lower(b); }) != text.end();
}

// Up to the first CR or LF, or the end.
std::string_view first_line(std::string_view text) {
  text = text.substr(0, text.find('\n'));
  return text.substr(0, text.find('\r'));
}

// Whether the first line has come to its end.
bool is_line(std::string_view text) { return text.find('\n') != std::string_view::npos; }

Answer smtp(const Payload& p, Findings& out) {
  constexpr std::array<std::string_view, 3> kHello = {"EHLO", "HELO", "LHLO"};
  const std::string_view here = text_of(p.here), there = text_of(p.there);
  const auto is_client = [&](std::string_view text) {
    if (!is_line(text)) return false;
    const std::string_view line = first_line(text);
    return has_command(line, kHello) || starts_nocase(line, "MAIL FROM:<") || starts_nocase(line, "RCPT TO:<");
  };
  const auto is_greeting = [&](std::string_view text) {
    return is_reply(first_line(text)) && (text.starts_with("220") || text.starts_with("554") || text.starts_with("421"));
  };
  if (!is_client(here) && !is_greeting(here) && !(is_client(there) && is_reply(first_line(here)))) {
    return here.size() < 4 ? Answer::more : Answer::no;
  }
  out.app = App::smtp;
  for (const std::string_view text : {here, there}) {
    if (is_greeting(text) && is_line(text)) out.attributes.set(Attribute::server_software, first_line(text).substr(3));
    if (is_client(text)) out.attributes.set(Attribute::client_software, first_line(text));
  }
  out.done = read_switch(p, out);
  if (is_client(here) || is_client(there)) return Answer::yes;
  const std::string_view line = first_line(here);
  if (contains_nocase(line, "smtp") || contains_nocase(line, "mail")) return Answer::yes;
  return contains_nocase(line, "ftp") ? Answer::no : Answer::likely;
}

Answer pop3(const Payload& p, Findings& out) {
  constexpr std::array<std::string_view, 9> kCommands = {"CAPA", "APOP", "STLS", "UIDL", "STAT", "USER", "AUTH", "RETR", "LIST"};
  const std::string_view here = text_of(p.here), there = text_of(p.there);
  const auto is_server = [](std::string_view text) { return text.starts_with("+OK") || text.starts_with("-ERR"); };
  const auto is_client = [&](std::string_view text) { return is_line(text) && has_command(first_line(text), kCommands); };
  if (!is_server(here) && !is_client(here)) return here.size() < 4 ? Answer::more : Answer::no;
  out.app = App::pop3;
  for (const std::string_view text : {here, there}) {
    if (is_server(text) && is_line(text)) out.attributes.set(Attribute::server_software, first_line(text).substr(3));
  }
  out.done = read_switch(p, out);
  const bool both = (is_server(here) && is_client(there)) || (is_client(here) && is_server(there));
  if (both || (is_server(here) && contains_nocase(first_line(here), "pop"))) return Answer::yes;
  // Redis answers "+OK" as well, to arrays.
  return is_server(here) && there.starts_with('*') ? Answer::no : Answer::likely;
}

Answer imap(const Payload& p, Findings& out) {
  constexpr std::array<std::string_view, 22> kCommands = {
      "CAPABILITY", "LOGIN",  "STARTTLS", "AUTHENTICATE", "SELECT", "EXAMINE", "LIST", "LSUB",      "NOOP",   "LOGOUT", "ID",
      "STATUS",     "FETCH",  "UID",      "IDLE",         "CREATE", "APPEND",  "CHECK", "NAMESPACE", "ENABLE", "CLOSE",  "STORE"};
  const std::string_view here = text_of(p.here), there = text_of(p.there);
  const auto is_server = [](std::string_view text) {
    return text.starts_with("* OK") || text.starts_with("* PREAUTH") || text.starts_with("* BYE") ||
           text.starts_with("* CAPABILITY");
  };
  const auto is_client = [&](std::string_view text) {
    const std::string_view line = first_line(text), tag = word(line);
    const bool tagged = is_line(text) && !tag.empty() && tag.size() <= 12 && tag.size() < line.size() &&
                        std::all_of(tag.begin(), tag.end(), [](char c) { return is_letter(c) || is_digit(c) || c == '.'; });
    return tagged && has_command(line.substr(tag.size() + 1), kCommands);
  };
  if (!is_server(here) && !is_client(here)) return here.size() < 6 ? Answer::more : Answer::no;
  out.app = App::imap;
  for (const std::string_view text : {here, there}) {
    if (is_server(text) && is_line(text)) out.attributes.set(Attribute::server_software, first_line(text).substr(2));
  }
  out.done = read_switch(p, out);
  const bool both = (is_server(here) && is_client(there)) || (is_client(here) && is_server(there));
  return both || (is_server(here) && contains_nocase(first_line(here), "imap")) ? Answer::yes : Answer::likely;
}

Answer nntp(const Payload& p, Findings& out) {
  constexpr std::array<std::string_view, 12> kCommands = {"MODE",  "GROUP",  "ARTICLE",   "CAPABILITIES", "AUTHINFO", "IHAVE",
                                                          "XOVER", "OVER",   "NEWGROUPS", "NEWNEWS",      "CHECK",    "TAKETHIS"};
  const std::string_view here = text_of(p.here), there = text_of(p.there);
  const auto is_server = [](std::string_view text) { return text.starts_with("200 ") || text.starts_with("201 "); };
  const auto is_client = [&](std::string_view text) {
    return is_line(text) && has_command(first_line(text), kCommands) && !contains_nocase(first_line(text), "HTTP/");
  };
  if (!is_server(here) && !is_client(here)) return here.size() < 4 ? Answer::more : Answer::no;
  out.app = App::nntp;
  for (const std::string_view text : {here, there}) {
    if (is_server(text) && is_line(text)) out.attributes.set(Attribute::server_software, first_line(text).substr(4));
  }
  out.done = read_switch(p, out);
  const bool both = (is_server(here) && is_client(there)) || (is_client(here) && is_server(there));
  const std::string_view line = first_line(here);
  const bool says = contains_nocase(line, "nntp") || contains_nocase(line, "nnrp") || contains_nocase(line, "news");
  return both || (is_server(here) && says) ? Answer::yes : Answer::likely;
}

// ---- FTP

// "h1,h2,h3,h4,p1,p2" (RFC 959, section 4.1.2)
std::optional<Expectation> host_port(std::string_view text) {
  uint32_t values[6];
  for (int i = 0; i < 6; ++i) {
    const std::string_view digits = text.substr(0, text.find_first_not_of("0123456789"));
    const auto value = number(digits, 3);
    if (!value || *value > 255) return std::nullopt;
    values[i] = *value;
    text.remove_prefix(digits.size());
    if (i < 5 && !text.starts_with(',')) return std::nullopt;
    if (i < 5) text.remove_prefix(1);
  }
  const uint64_t address = values[0] << 24 | values[1] << 16 | values[2] << 8 | values[3];
  return Expectation{U128{0, address}, false, static_cast<uint16_t>(values[4] << 8 | values[5]), 6, App::ftp_data};
}

// "|1|10.0.0.1|2345|" or "|2|::1|2345|": the port; the address is taken to be the sender's (RFC 2428 allows no other use
// that works through a firewall).
std::optional<uint16_t> extended_port(std::string_view text) {
  if (text.empty()) return std::nullopt;
  const char mark = text.front();
  const size_t last = text.rfind(mark);
  const size_t before = last == 0 ? std::string_view::npos : text.rfind(mark, last - 1);
  if (before == std::string_view::npos) return std::nullopt;
  const auto port = number(text.substr(before + 1, last - before - 1), 5);
  if (!port || *port > 65535) return std::nullopt;
  return static_cast<uint16_t>(*port);
}

void find_data_channel(std::string_view line, Findings& out) {
  std::optional<Expectation> found;
  if (starts_nocase(line, "PORT ")) {
    found = host_port(line.substr(5));
  } else if (line.starts_with("227")) {
    const size_t at = line.find_first_of("0123456789", 3);
    if (at != std::string_view::npos) found = host_port(line.substr(at));
  } else if (starts_nocase(line, "EPRT ")) {
    if (const auto port = extended_port(trimmed(line.substr(5)))) found = Expectation{{}, false, *port, 6, App::ftp_data};
  } else if (line.starts_with("229")) {
    const size_t open = line.find('('), close = line.rfind(')');
    if (open != std::string_view::npos && close != std::string_view::npos && close > open) {
      if (const auto port = extended_port(line.substr(open + 1, close - open - 1))) {
        found = Expectation{{}, false, *port, 6, App::ftp_data};
      }
    }
  }
  if (found) out.expectations.push_back(*found);
}

Answer ftp(const Payload& p, Findings& out) {
  constexpr std::array<std::string_view, 24> kCommands = {"USER", "PASS", "FEAT", "SYST", "PASV", "EPSV", "PORT", "EPRT",
                                                          "TYPE", "CWD",  "PWD",  "RETR", "STOR", "LIST", "NLST", "MLSD",
                                                          "OPTS", "SIZE", "MDTM", "AUTH", "PBSZ", "PROT", "XPWD", "CLNT"};
  const std::string_view here = text_of(p.here), there = text_of(p.there);
  const bool known = out.app == App::ftp || out.app == App::ftps;
  const auto is_client = [&](std::string_view text) { return is_line(text) && has_command(first_line(text), kCommands); };
  const auto is_greeting = [](std::string_view text) {
    return is_reply(first_line(text)) && (text.starts_with("220") || text.starts_with("421") || text.starts_with("120"));
  };
  if (!known && !is_client(here) && !is_greeting(here) && !(is_client(there) && is_reply(first_line(here)))) {
    return here.size() < 4 ? Answer::more : Answer::no;
  }
  const bool both = (is_greeting(here) && is_client(there)) || (is_client(here) && is_reply(first_line(there)));
  const bool says = is_greeting(here) && contains_nocase(first_line(here), "ftp");
  const bool only = is_client(here) && (starts_nocase(here, "FEAT") || starts_nocase(here, "PASV") ||
                                        starts_nocase(here, "EPSV") || starts_nocase(here, "PBSZ"));
  if (!known) out.app = App::ftp;
  out.follow = true;
  if (is_greeting(here) && is_line(here)) out.attributes.set(Attribute::server_software, first_line(here).substr(3));
  std::string_view fresh = here.substr(here.size() - p.fresh);
  while (const auto line = next_line(fresh)) find_data_channel(*line, out);
  out.done = read_switch(p, out);
  if (out.attributes.has(Attribute::starttls)) {
    out.app = App::ftps;
    out.follow = false;
  }
  if (known || both || says || only) return Answer::yes;
  const bool mail = contains_nocase(first_line(here), "smtp") || contains_nocase(first_line(here), "mail");
  return is_greeting(here) && mail ? Answer::no : Answer::likely;
}

// ---- chat

Answer irc(const Payload& p, Findings& out) {
  std::string_view text = text_of(p.here);
  bool nick = false, user = false, server = false;
  for (int i = 0; i < 8; ++i) {
    const auto line = next_line(text);
    if (!line) break;
    if (starts_nocase(*line, "NICK ")) nick = true;
    if (starts_nocase(*line, "USER ") && line->find(" :") != std::string_view::npos) user = true;
    if (starts_nocase(*line, "CAP LS") || starts_nocase(*line, "CAP REQ")) nick = user = true;
    if (line->starts_with(':')) {
      const size_t space = line->find(' ');
      const std::string_view rest = space == std::string_view::npos ? "" : line->substr(space + 1);
      server = server || rest.starts_with("NOTICE ") || rest.starts_with("PRIVMSG ") || rest.starts_with("JOIN ") ||
               rest.starts_with("001 ") || rest.starts_with("020 ") || rest.starts_with("433 ");
    }
    if (line->starts_with("NOTICE AUTH :") || line->starts_with("PING :")) server = true;
  }
  if (!nick && !user && !server) return p.here.size() < 512 && !is_line(text_of(p.here)) ? Answer::more : Answer::no;
  out.app = App::irc;
  out.done = read_switch(p, out);
  return server || (nick && user) ? Answer::yes : Answer::likely;
}

Answer xmpp(const Payload& p, Findings& out) {
  const std::string_view text = text_of(p.here);
  if (!could_begin(p.here, "<?xml") && !could_begin(p.here, "<stream:stream") && out.app != App::xmpp) return Answer::no;
  const bool stream = text.find("<stream:stream") != std::string_view::npos;
  const bool jabber = text.find("jabber:") != std::string_view::npos || text.find("etherx.jabber.org") != std::string_view::npos;
  if (!stream || !jabber) return text.size() < 1024 ? Answer::more : Answer::no;
  out.app = App::xmpp;
  // The TLS of a stream follows the markup without a line end.
  const auto behind = [](Bytes bytes) {
    const size_t at = text_of(bytes).find(">\x16\x03");
    return at == std::string_view::npos ? Bytes{} : bytes.subspan(at + 1);
  };
  const Bytes here = behind(p.here), there = behind(p.there);
  const TlsProgress one = here.empty() ? TlsProgress{} : read_tls_stream(here, out.attributes);
  const TlsProgress two = there.empty() ? TlsProgress{} : read_tls_stream(there, out.attributes);
  if (one.answer == Answer::yes || two.answer == Answer::yes) out.attributes.set(Attribute::starttls, "yes");
  out.done = (one.client_hello && two.server_hello) || (two.client_hello && one.server_hello);
  return Answer::yes;
}

Answer ymsg(const Payload& p, Findings& out) {
  if (!could_begin(p.here, "YMSG")) return Answer::no;
  if (p.here.size() < 20) return Answer::more;
  out.app = App::ymsg;
  out.done = true;
  return Answer::yes;
}

}  // namespace

void add_mail(Registry& registry) {
  const FirstBytes reply = bytes_of("1245"), command = letters();
  registry.push_back({App::smtp, kTcp, reply + command, &smtp});
  registry.push_back({App::ftp, kTcp, reply + command, &ftp});
  registry.push_back({App::pop3, kTcp, bytes_of("+-") + command, &pop3});
  registry.push_back({App::imap, kTcp, bytes_of("*0123456789") + command, &imap});
  registry.push_back({App::nntp, kTcp, bytes_of("2") + command, &nntp});
  registry.push_back({App::irc, kTcp, bytes_of(":") + command, &irc});
  registry.push_back({App::xmpp, kTcp, bytes_of("<"), &xmpp});
  registry.push_back({App::ymsg, kTcp, bytes_of("Y"), &ymsg});
}

}  // namespace meshsieve::app
