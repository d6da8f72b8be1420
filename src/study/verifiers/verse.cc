// Verse by its shape: different short lines and no long one. No list, no code. The first line may be a title or a
// lead-in ("The Bee", "# The Bee", "Here is a poem:"); the last may be cut off.
#include <algorithm>
#include <set>

#include "saif/error.h"
#include "saif/options.h"
#include "study/verifiers/lists.h"
#include "study/verifiers/make.h"

namespace saif {
namespace {

struct VerseArgs {
  int64_t min_lines = 2, min_words = 2, max_words = 12;
  template <typename V>
  void describe(V& v) {
    v("min_lines", min_lines, "different lines at least");
    v("min_words", min_words, "words of a line at least");
    v("max_words", max_words, "words of a line at most");
  }
};

bool is_code_or_list(std::string_view line) {
  return numbered_line(line) || is_bullet(line) || line.find_first_of("{}<>=\\|`[]$%@^~") != std::string_view::npos ||
         line.starts_with('#');
}

bool has_letters(const std::vector<std::u32string>& words) {
  return std::any_of(words.begin(), words.end(), [](const std::u32string& w) {
    return std::any_of(w.begin(), w.end(), [](char32_t c) {
      return (U'a' <= c && c <= U'z') || (c >= 0xC0 && (c < 0x2000 || c > 0x206F) && c != 0xFFFD);
    });
  });
}

class VerseVerifier : public Verifier {
 public:
  explicit VerseVerifier(const VerseArgs& args) : args_(args) {}
  bool passes(std::string_view answer) const override {
    const std::vector<std::string_view> lines = filled_lines(answer);
    std::set<std::vector<std::u32string>> different;
    for (size_t i = 0; i < lines.size(); ++i) {
      std::string_view line = lines[i];
      const bool heading = i == 0 && line.starts_with('#');
      if (heading) line = trim(line.substr(std::min(line.find_first_not_of('#'), line.size())));
      const std::vector<std::u32string> words = words_of(line);
      const auto count = static_cast<int64_t>(words.size());
      if (is_code_or_list(line) || count > args_.max_words) return false;
      const bool title = heading || (i == 0 && (count < args_.min_words || line.ends_with(':') || is_bold(line)));
      if (title) continue;
      if (count < args_.min_words || !has_letters(words)) {
        if (i + 1 < lines.size()) return false;
        continue;
      }
      different.insert(words);
    }
    return static_cast<int64_t>(different.size()) >= args_.min_lines;
  }

 private:
  static bool is_bold(std::string_view line) { return line.starts_with("**") && line.ends_with("**"); }
  VerseArgs args_;
};

}  // namespace

VerifierPointer make_verse_verifier(const Json& args) {
  const auto options = options_from_json<VerseArgs>(args, "arguments of verifier 'verse'");
  if (options.min_lines < 1 || options.min_words < 1 || options.max_words < options.min_words) {
    throw Error(Errc::kInvalidArgument,
                "verifier 'verse': found " + args.dump() + ", expected min_lines >= 1 and 1 <= min_words <= max_words");
  }
  return std::make_unique<VerseVerifier>(options);
}

}  // namespace saif
