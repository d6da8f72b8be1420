#include "base/check.h"
#include "engine/generate.h"
#include "engine/impl.h"

namespace saif {

Engine::Engine(std::shared_ptr<const Model> model, std::shared_ptr<const Tokenizer> tokenizer, EngineOptions options) {
  SAIF_CHECK(model != nullptr, "an engine needs a model");
  const auto positive = [](const char* name, int64_t value) {
    if (value < 1)
      throw Error(Errc::kInvalidArgument,
                  std::string("engine: ") + name + " is " + std::to_string(value) + ", must be at least 1");
  };
  positive("max_batch", options.max_batch);
  positive("max_prefill_rows", options.max_prefill_rows);
  impl_ = std::make_unique<Impl>(std::move(model), std::move(tokenizer), options);
}

Engine::~Engine() = default;
const Model& Engine::model() const { return *impl_->model; }
std::shared_ptr<const Model> Engine::model_ptr() const { return impl_->model; }
std::shared_ptr<const Tokenizer> Engine::tokenizer_ptr() const { return impl_->tokenizer; }

const Tokenizer& Engine::tokenizer() const {
  SAIF_CHECK(impl_->tokenizer != nullptr, "this engine has no tokenizer");
  return *impl_->tokenizer;
}

std::vector<GenerateResult> Engine::generate(std::span<const GenerateRequest> requests, const Control& control,
                                             const OnToken& on_token, const OnDone& on_done) {
  const EngineUse use(impl_->in_use);
  Generation generation(*impl_, requests, on_token, on_done);
  return generation.run(control);
}

void check_ids(const Architecture& architecture, std::span<const int32_t> ids, int64_t limit, const std::string& who) {
  if (ids.empty()) throw Error(Errc::kInvalidArgument, who + " is empty: give it at least one token");
  if (static_cast<int64_t>(ids.size()) > limit)
    throw Error(Errc::kInvalidArgument, who + " has " + std::to_string(ids.size()) + " tokens, but only " +
                                            std::to_string(limit) + " fit (the model's context is " +
                                            std::to_string(architecture.context) + "): shorten it");
  for (size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= architecture.vocab)
      throw Error(Errc::kInvalidArgument, who + " has id " + std::to_string(ids[i]) + " at position " +
                                              std::to_string(i) + ", but the vocabulary has " +
                                              std::to_string(architecture.vocab) +
                                              " tokens: use the model's own tokenizer");
}

}  // namespace saif
