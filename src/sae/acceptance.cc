// The acceptance check: is this SAE, as loaded, one of this model at this site?
#include <cctype>
#include <cstdio>

#include "sae/acceptance_text.h"
#include "sae/activations.h"
#include "sae/diagnosis.h"
#include "sae/fit.h"
#include "saif/sae.h"

namespace saif {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

// Lower-case letters and digits of the last part of a path or hub name.
std::string plain_name(const std::string& name) {
  std::string out;
  for (const char c : name.substr(name.find_last_of('/') + 1)) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0)
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return out;
}

std::vector<std::vector<int32_t>> acceptance_documents(const Engine& engine) {
  const Tokenizer& tokenizer = engine.tokenizer();
  std::vector<std::vector<int32_t>> documents;
  for (const std::string_view text : acceptance_texts()) documents.push_back(tokenizer.encode(text, {}));
  if (tokenizer.has_chat_template()) {
    const std::vector<Message> chat = {{"user", "How does a battery store energy?"},
                                       {"assistant", std::string(acceptance_texts()[1])},
                                       {"user", "Thank you. And how is bread made?"},
                                       {"assistant", std::string(acceptance_texts()[3])}};
    documents.push_back(encode_chat(tokenizer, chat, false));
  }
  const auto context = static_cast<size_t>(engine.model().architecture().context);
  for (std::vector<int32_t>& document : documents) document.resize(std::min(document.size(), context));
  return documents;
}

// What is wrong with the figures; "" when they pass.
std::string complaint(const Sae& sae, const SaeFidelity& fidelity) {
  if (passes_check(sae.config(), fidelity.l0, fidelity.fvu)) return "";
  if (fidelity.fvu <= kMaxFvu) {
    return "L0 is " + number(fidelity.l0) + " on ordinary text; expected about " +
           number(sae.config().published_l0.value_or(0)) + " as published";
  }
  return "the reconstruction leaves FVU " + number(fidelity.fvu) + " on ordinary text (L0 " + number(fidelity.l0) +
         "); expected at most " + number(kMaxFvu);
}

}  // namespace

bool same_model_name(const std::string& a, const std::string& b) {
  const std::string x = plain_name(a), y = plain_name(b);
  return x.find(y) != std::string::npos || y.find(x) != std::string::npos;
}

Site require_fit(const Sae& sae, const Engine& engine, const std::string& site_override, bool check_model) {
  const SaeConfig& config = sae.config();
  const Architecture& architecture = engine.model().architecture();
  const std::string& name = site_override.empty() ? config.site : site_override;
  if (name.empty()) {
    throw Error(
        Errc::kMismatch,
        "SAE " + sae.path() + " does not say at which site it reads; name one, for instance blocks.24.hook_resid_post");
  }
  Site site;
  try {
    site = Site::parse(name, static_cast<int>(architecture.n_layers));
  } catch (const Error& error) {
    throw Error(Errc::kMismatch, "SAE " + sae.path() + " and model " + engine.model().name() + ": " + error.what());
  }
  if (architecture.width(site) != config.d_in) {
    throw Error(Errc::kMismatch, "SAE " + sae.path() + " reads width " + std::to_string(config.d_in) + ", but " + name +
                                     " of model " + engine.model().name() + " has width " +
                                     std::to_string(architecture.width(site)) + "; use an SAE of this model");
  }
  if (check_model && !config.model.empty() && !same_model_name(config.model, engine.model().name())) {
    throw Error(Errc::kMismatch, "SAE " + sae.path() + " was trained on model " + config.model + ", but the model is " +
                                     engine.model().name() + "; use an SAE of this model (override to go on)");
  }
  return site;
}

void require_latents(const Sae& sae, std::span<const int32_t> latents) {
  const int64_t d_sae = sae.config().d_sae;
  for (const int32_t latent : latents) {
    if (latent >= 0 && latent < d_sae) continue;
    throw Error(Errc::kInvalidArgument, "latent " + std::to_string(latent) + " of SAE " + sae.path() +
                                            " does not exist; it has " + std::to_string(d_sae) + " (from 0)");
  }
}

namespace {

// What a transcoder reconstructs.
Site output_site(const Sae& sae, const Engine& engine) {
  const std::string& name = sae.config().site_out;
  const Architecture& architecture = engine.model().architecture();
  if (name.empty()) {
    throw Error(Errc::kMismatch,
                "transcoder " + sae.path() + " does not say what it reconstructs, so it cannot be checked");
  }
  const Site site = Site::parse(name, static_cast<int>(architecture.n_layers));
  if (architecture.width(site) == sae.config().d_out) return site;
  throw Error(Errc::kMismatch, "transcoder " + sae.path() + " gives width " + std::to_string(sae.config().d_out) +
                                   ", but " + name + " of model " + engine.model().name() + " has width " +
                                   std::to_string(architecture.width(site)) + "; use one of this model");
}

}  // namespace

SaeFidelity check_sae(const Sae& sae, Engine& engine, const AcceptanceOptions& options, const Control& control) {
  const Site site = require_fit(sae, engine, options.site, options.enforce);
  const std::vector<std::vector<int32_t>> documents = acceptance_documents(engine);
  const Tensor rows = collect_activations(engine, documents, site, 1, 1 << 20, control);
  const SaeFidelity fidelity = [&] {
    if (!sae.config().transcoder) return measure_fidelity(sae, rows.f32());
    const Site out = output_site(sae, engine);
    const Tensor target = collect_activations(engine, documents, out, 1, 1 << 20, control);
    return measure_fidelity(sae, rows.f32(), target.f32());
  }();
  if (!options.enforce) return fidelity;
  const std::string wrong = complaint(sae, fidelity);
  if (wrong.empty()) return fidelity;
  const std::string cause = likely_cause(sae, try_neighbours(sae, engine, documents, site, control), site);
  throw Error(Errc::kRefused, "SAE " + sae.path() + " at " + site.name() + ": " + wrong + "; " + cause +
                                  " (override to go on as it is)");
}

}  // namespace saif
