#include <string>

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
  if (code.size() != 2 || code.find_first_not_of("abcdefghijklmnopqrstuvwxyz") != std::string::npos) {
    throw Error(Errc::kInvalidArgument, "verifier 'language': found language '" + code +
                                            "', expected a two-letter ISO 639-1 code such as \"fr\"");
  }
  return std::make_unique<LanguageVerifier>(code);
}

}  // namespace saif
