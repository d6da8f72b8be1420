// How the answer begins, after white space, quotes and asterisks; ASCII case ignored, ending at a word's end.
#include <cctype>

#include "saif/error.h"
#include "saif/options.h"
#include "study/text_units.h"
#include "study/verifiers/make.h"

namespace saif {
namespace {

struct PrefixArgs {
  std::string text;
  template <typename V>
  void describe(V& v) {
    v("text", text, "how the answer begins");
  }
};

// Without leading white space, quotes and asterisks, lower-cased, each run of white space made one space.
std::string normal(std::string_view text) {
  constexpr std::string_view kOpening[] = {" ",  "\t", "\n", "\r",     "*",      "_",      "#",     ">",
                                           "\"", "'",  "`",  "\u201C", "\u2018", "\u00AB", "\u201E"};
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view opening : kOpening) {
      if (!text.starts_with(opening)) continue;
      text.remove_prefix(opening.size());
      again = true;
    }
  }
  std::string out;
  for (const char c : lower_ascii(text)) {
    const bool space = std::isspace(static_cast<unsigned char>(c)) != 0;
    if (space && out.ends_with(' ')) continue;
    out.push_back(space ? ' ' : c);
  }
  return out;
}

class PrefixVerifier : public Verifier {
 public:
  explicit PrefixVerifier(std::string text) : text_(std::move(text)) {}
  bool passes(std::string_view answer) const override {
    const std::string found = normal(answer);
    if (!found.starts_with(text_)) return false;
    if (found.size() == text_.size()) return true;
    const auto next = static_cast<unsigned char>(found[text_.size()]);
    const auto last = static_cast<unsigned char>(text_.back());
    const bool inside_word = next < 0x80 && std::isalnum(next) != 0 && last < 0x80 && std::isalnum(last) != 0;
    return !inside_word;
  }

 private:
  std::string text_;
};

}  // namespace

VerifierPointer make_prefix_verifier(const Json& args) {
  const auto options = options_from_json<PrefixArgs>(args, "arguments of verifier 'prefix'");
  std::string text = normal(options.text);
  while (text.ends_with(' ')) text.pop_back();
  if (text.empty()) {
    throw Error(Errc::kInvalidArgument, "verifier 'prefix': found text \"" + options.text +
                                            "\", expected the words that the answer begins with");
  }
  return std::make_unique<PrefixVerifier>(std::move(text));
}

}  // namespace saif
