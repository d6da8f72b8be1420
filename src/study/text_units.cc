#include "study/text_units.h"

#include <algorithm>
#include <cctype>

namespace saif {
namespace {

// Length of the valid UTF-8 sequence at `text[i]`, 0 when there is none (overlong forms and surrogates included).
size_t sequence_length(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned lead = byte(i);
  const size_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (length == 0 || i + length > text.size()) return 0;
  for (size_t k = 1; k < length; ++k) {
    if ((byte(i + k) & 0xC0) != 0x80) return 0;
  }
  if (length < 3) return length;
  const unsigned second = byte(i + 1);
  const bool bad = (lead == 0xE0 && second < 0xA0) || (lead == 0xED && second >= 0xA0) ||
                   (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second >= 0x90);
  return bad ? 0 : length;
}

bool is_punctuation(uint32_t c) {
  if (c < 0x80) return std::ispunct(static_cast<int>(c)) != 0;
  return (0xA1 <= c && c <= 0xBF && c != 0xAA && c != 0xB5 && c != 0xBA) || (0x2010 <= c && c <= 0x205E) ||
         (0x3001 <= c && c <= 0x3011) || (0xFF01 <= c && c <= 0xFF0F) || c == 0xFF1A || c == 0xFF1B || c == 0xFF1F;
}

uint32_t lower(uint32_t c) {
  if ((U'A' <= c && c <= U'Z') || (0xC0 <= c && c <= 0xDE && c != 0xD7) || (0x391 <= c && c <= 0x3A9) ||
      (0x410 <= c && c <= 0x42F)) {
    return c + 32;
  }
  if (0x400 <= c && c <= 0x40F) return c + 80;
  const bool odd_is_upper = (0x139 <= c && c <= 0x148) || (0x179 <= c && c <= 0x17E);
  if (0x100 <= c && c <= 0x17E && c != 0x130 && c != 0x131 && c != 0x138 && c != 0x149 && c != 0x178) {
    return (c % 2 == 1) == odd_is_upper ? c + 1 : c;
  }
  return c;
}

}  // namespace

std::vector<uint32_t> code_points(std::string_view text) {
  std::vector<uint32_t> out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t length = sequence_length(text, i);
    const unsigned lead = static_cast<unsigned char>(text[i]);
    if (length <= 1) {
      out.push_back(length == 1 ? lead : 0xFFFD);
      ++i;
      continue;
    }
    uint32_t c = lead & (0x7FU >> length);
    for (size_t k = 1; k < length; ++k) c = (c << 6) | (static_cast<unsigned char>(text[i + k]) & 0x3FU);
    out.push_back(c);
    i += length;
  }
  return out;
}

bool is_space(uint32_t c) {
  return (9 <= c && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (0x2000 <= c && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000 || c == 0xFEFF;
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\n\v\f\r";
  const size_t begin = text.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpaces) - begin + 1);
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return lines;
}

std::vector<std::string_view> filled_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  for (const std::string_view line : split_lines(text)) {
    if (const std::string_view kept = trim(line); !kept.empty()) lines.push_back(kept);
  }
  return lines;
}

std::vector<std::u32string> words_of(std::string_view text) {
  std::vector<std::u32string> words;
  std::u32string word;
  const auto finish = [&] {
    const auto letter = [](char32_t c) { return !is_punctuation(c); };
    const auto first = std::find_if(word.begin(), word.end(), letter);
    const auto last = std::find_if(word.rbegin(), word.rend(), letter).base();
    if (!word.empty()) words.push_back(first < last ? std::u32string(first, last) : word);
    word.clear();
  };
  for (const uint32_t c : code_points(text)) {
    if (is_space(c)) {
      finish();
    } else {
      word.push_back(lower(c));
    }
  }
  finish();
  return words;
}

std::string lower_ascii(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if ('A' <= c && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return out;
}

}  // namespace saif
