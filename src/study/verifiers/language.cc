#include <algorithm>
#include <string>
#include <vector>

#include "saif/error.h"
#include "saif/options.h"
#include "saif/text.h"
#include "study/verifiers/make.h"

namespace saif {
namespace {

struct LanguageArgs {
  std::string language;
  template <typename V>
  void describe(V& v) {
    v("language", language, "ISO 639-1 code");
  }
};

class LanguageVerifier : public Verifier {
 public:
  explicit LanguageVerifier(std::string code) : code_(std::move(code)) {}
  bool passes(std::string_view answer) const override {
    constexpr double kMinConfidence = 0.5;
    const std::optional<LanguageGuess> guess = identify_language(answer);
    return guess && guess->code == code_ && guess->confidence >= kMinConfidence;
  }

 private:
  std::string code_;
};

}  // namespace

VerifierPointer make_language_verifier(const Json& args) {
  const auto options = options_from_json<LanguageArgs>(args, "arguments of verifier 'language'");
  const std::string& code = options.language;
  const std::vector<std::string> known = identifiable_languages();
  if (std::find(known.begin(), known.end(), code) == known.end()) {
    std::string list;
    for (const std::string& each : known) list += (list.empty() ? "" : ", ") + each;
    throw Error(Errc::kInvalidArgument,
                "verifier 'language': found language '" + code + "', expected one that can be identified: " + list);
  }
  return std::make_unique<LanguageVerifier>(code);
}

}  // namespace saif
