#include "report/html.h"

#include <cstdint>
#include <utility>

#include "base/check.h"

namespace saif::report {
namespace {

constexpr uint32_t kReplacement = 0xFFFD;

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

// The character at text[i], which moves past it; past one byte where the bytes are no UTF-8.
uint32_t next_character(std::string_view text, size_t& i) {
  const auto byte = [&](size_t at) { return static_cast<uint32_t>(static_cast<unsigned char>(text[at])); };
  const uint32_t first = byte(i++);
  if (first < 0x80) return first;
  const size_t more = first >= 0xC2 && first < 0xE0   ? 1
                      : first >= 0xE0 && first < 0xF0 ? 2
                      : first >= 0xF0 && first < 0xF5 ? 3
                                                      : 0;
  if (more == 0 || more > text.size() - i) return kReplacement;
  uint32_t c = first & (0x3FU >> more);
  for (size_t j = 0; j < more; ++j) {
    if ((byte(i + j) & 0xC0) != 0x80) return kReplacement;
    c = (c << 6) | (byte(i + j) & 0x3F);
  }
  constexpr uint32_t kSmallest[] = {0, 0x80, 0x800, 0x10000};
  if (c < kSmallest[more] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return kReplacement;
  i += more;
  return c;
}

bool no_character(uint32_t c) {
  return (c >= 0x80 && c < 0xA0) || (c & 0xFFFE) == 0xFFFE || (c >= 0xFDD0 && c < 0xFDF0);
}

void append_escaped(std::string& out, uint32_t c) {
  switch (c) {
    case '&':
      out += "&amp;";
      return;
    case '<':
      out += "&lt;";
      return;
    case '>':
      out += "&gt;";
      return;
    case '"':
      out += "&quot;";
      return;
    case '\'':
      out += "&#39;";
      return;
    default:
      break;
  }
  if (c < 0x20 && c != '\n' && c != '\t') {
    c += 0x2400;
  } else if (c == 0x7F) {
    c = 0x2421;
  } else if (no_character(c)) {
    c = kReplacement;
  }
  append_utf8(out, c);
}

}  // namespace

std::string escape(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (size_t i = 0; i < text.size();) {
    const uint32_t c = next_character(text, i);
    if (c == '\r') {
      if (i < text.size() && text[i] == '\n') ++i;
      out += '\n';
    } else {
      append_escaped(out, c);
    }
  }
  return out;
}

std::string visible_token(std::string_view token) {
  std::string out;
  for (const char c : token) {
    switch (c) {
      case ' ':
        out += "·";
        break;
      case '\n':
        out += "↵";
        break;
      case '\r':
        out += "↵";
        break;
      case '\t':
        out += "⇥";
        break;
      default:
        out += c;
    }
  }
  return out;
}

void Html::start(std::string_view tag, std::initializer_list<Attribute> attributes) {
  out_ += '<';
  out_ += tag;
  for (const Attribute& a : attributes) {
    if (a.value.empty()) continue;
    out_ += ' ';
    out_ += a.name;
    out_ += "=\"";
    out_ += escape(a.value);
    out_ += '"';
  }
}

Html& Html::open(std::string_view tag, std::initializer_list<Attribute> attributes) {
  start(tag, attributes);
  out_ += '>';
  open_.push_back(tag);
  return *this;
}

Html& Html::close() {
  SAIF_CHECK(!open_.empty(), "more elements closed than opened");
  out_ += "</";
  out_ += open_.back();
  out_ += '>';
  open_.pop_back();
  return *this;
}

Html& Html::text(std::string_view text) { return raw(escape(text)); }

Html& Html::element(std::string_view tag, std::string_view content, std::initializer_list<Attribute> attributes) {
  return open(tag, attributes).text(content).close();
}

Html& Html::leaf(std::string_view tag, std::initializer_list<Attribute> attributes) {
  start(tag, attributes);
  out_ += "/>";
  return *this;
}

Html& Html::raw(std::string_view markup) {
  out_ += markup;
  return *this;
}

Html& Html::line() { return raw("\n"); }

std::string Html::finish() {
  while (!open_.empty()) close();
  return std::exchange(out_, {});
}

}  // namespace saif::report
