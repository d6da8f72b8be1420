#include <algorithm>
#include <array>

#include "model/families/family.h"

namespace saif {

extern const Family kLlamaFamily, kQwenFamily, kGemmaFamily, kPhi3Family, kGpt2Family, kGptNeoxFamily, kOlmo2Family,
    kStableLmFamily, kMixtralFamily;

namespace {

const std::array kFamilies = {
    &kLlamaFamily,   &kQwenFamily,  &kGemmaFamily,    &kPhi3Family,    &kGpt2Family,
    &kGptNeoxFamily, &kOlmo2Family, &kStableLmFamily, &kMixtralFamily,
};

[[noreturn]] void unknown(const std::string& kind, const std::string& found, const std::string& known) {
  throw Error(Errc::kUnsupported, kind + " \"" + found + "\" is not implemented; implemented are: " + known);
}

}  // namespace

const Family& family_of_model_type(const std::string& model_type) {
  std::string known;
  for (const Family* family : kFamilies) {
    if (std::ranges::count(family->model_types, model_type) > 0) return *family;
    for (const auto& name : family->model_types) known += (known.empty() ? "" : ", ") + std::string(name);
  }
  unknown("model_type", model_type, known);
}

const Family& family_of_gguf(const std::string& architecture) {
  std::string known;
  for (const Family* family : kFamilies) {
    if (std::ranges::count(family->gguf_architectures, architecture) > 0) return *family;
    for (const auto& name : family->gguf_architectures) known += (known.empty() ? "" : ", ") + std::string(name);
  }
  unknown("general.architecture", architecture, known);
}

}  // namespace saif
