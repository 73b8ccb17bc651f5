#include "route/template_match.h"

#include <array>

#include "meshsieve/errors.h"

namespace meshsieve::route {
namespace {

// Bytes that operators take; `/` is added for `**`.
constexpr std::array<bool, 256> operator_bytes() {
  std::array<bool, 256> table{};
  constexpr std::string_view kLettersAndDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  for (const char c : kLettersAndDigits) table[static_cast<uint8_t>(c)] = true;
  for (const char c : std::string_view("-._~%!$&'()+,;:@=*"))
    table[static_cast<uint8_t>(c)] = true;
  return table;
}
constexpr std::array<bool, 256> kOperatorBytes = operator_bytes();

bool takes(std::string_view text, bool slashes) {
  for (const char c : text)
    if (!kOperatorBytes[static_cast<uint8_t>(c)] && !(slashes && c == '/')) return false;
  return true;
}

}  // namespace

TemplateMatch::TemplateMatch(std::vector<Piece> pieces) : pieces_(std::move(pieces)) {
  for (size_t i = 0; i + 1 < pieces_.size(); ++i) {
    const bool last = i + 2 == pieces_.size();
    const bool operator_here = pieces_[i].kind != Piece::Kind::literal;
    const bool any_here = pieces_[i].kind == Piece::Kind::any;
    if ((operator_here && pieces_[i + 1].kind != Piece::Kind::literal) || (any_here && !last))
      throw CompileError("a template's operator must be followed by a literal");
  }
}

std::string_view TemplateMatch::prefix() const {
  return !pieces_.empty() && pieces_[0].kind == Piece::Kind::literal ? std::string_view(pieces_[0].text) : "";
}

bool TemplateMatch::matches(std::string_view path) const {
  size_t at = 0;
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const Piece& piece = pieces_[i];
    const std::string_view next = i + 1 < pieces_.size() ? std::string_view(pieces_[i + 1].text) : "";
    switch (piece.kind) {
      case Piece::Kind::literal:
        if (!path.substr(at).starts_with(piece.text)) return false;
        at += piece.text.size();
        break;
      case Piece::Kind::segment: {
        // What follows in the same segment ends where the segment ends, so it says where the operator ends.
        const size_t end = std::min(path.find('/', at), path.size());
        const size_t tail = std::min(next.find('/'), next.size());
        if (end - at < tail + 1 || !takes(path.substr(at, end - at - tail), false)) return false;
        at = end - tail;
        break;
      }
      case Piece::Kind::any:
        if (path.size() - at < next.size()) return false;
        if (!takes(path.substr(at, path.size() - at - next.size()), true)) return false;
        at = path.size() - next.size();
        break;
    }
  }
  return at == path.size();
}

}  // namespace meshsieve::route
