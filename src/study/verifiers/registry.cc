#include <array>
#include <utility>

#include "saif/error.h"
#include "saif/options.h"
#include "study/verifiers/make.h"

namespace saif {
namespace {

constexpr std::array<std::pair<const char*, VerifierPointer (*)(const Json&)>, 7> kVerifiers = {{
    {"language", make_language_verifier},
    {"json", make_json_verifier},
    {"python", make_python_verifier},
    {"numbered_list", make_numbered_list_verifier},
    {"verse", make_verse_verifier},
    {"prefix", make_prefix_verifier},
    {"sentences", make_sentences_verifier},
}};

}  // namespace

std::vector<std::string> verifier_names() {
  std::vector<std::string> names;
  names.reserve(kVerifiers.size());
  for (const auto& [name, make] : kVerifiers) names.emplace_back(name);
  return names;
}

std::unique_ptr<const Verifier> make_verifier(std::string_view name, const Json& args) {
  if (!args.is_null() && !args.is_object()) {
    throw Error(Errc::kInvalidArgument,
                "arguments of verifier '" + std::string(name) + "': found " + args.dump() + ", expected an object");
  }
  for (const auto& [known, make] : kVerifiers) {
    if (name == known) return make(args.is_null() ? Json::object() : args);
  }
  const std::vector<std::string> names = verifier_names();
  std::string message = "verifier '" + std::string(name) + "' does not exist; ";
  if (const std::string near = nearest_name(name, names); !near.empty()) {
    message += "did you mean '" + near + "'?";
  } else {
    message += "known:";
    for (const std::string& n : names) message += " " + n;
  }
  throw Error(Errc::kInvalidArgument, message);
}

}  // namespace saif
