// What the engine's tests share: a tiny model, edits, random requests.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "saif/engine.h"
#include "support/letter_tokenizer.h"
#include "support/run_model.h"
#include "support/tiny_model.h"

namespace saif::test {

inline const std::shared_ptr<const Model>& tiny() {
  static const std::shared_ptr<const Model> model = Model::load(TinyModel(11).write("engine"), {"f32"});
  return model;
}

// 50 pieces: letters, some of them long, and half characters.
inline std::shared_ptr<const Tokenizer> letters(std::vector<int32_t> stop_ids = {}) {
  std::vector<std::string> pieces;
  for (int i = 0; i < 50; ++i) pieces.push_back(std::string(1 + i % 3, static_cast<char>('a' + i % 26)));
  pieces[40] = "\xC3";
  pieces[41] = "\xA9";
  return std::make_shared<LetterTokenizer>(pieces, std::move(stop_ids));
}

// h += strength * (1 + step / 10) * a fixed vector, so that wrong steps are seen.
class AddRamp : public RowEdit {
 public:
  AddRamp(float strength, uint64_t seed) : strength_(strength), seed_(seed) {}
  float at(int64_t step, int64_t column) const {
    Rng rng(seed_, static_cast<uint64_t>(column));
    return strength_ * (1.0F + 0.1F * static_cast<float>(step)) * static_cast<float>(rng.normal());
  }
  void apply(Mat<float> h, std::span<const int64_t> steps) const override {
    for (int64_t r = 0; r < h.rows(); ++r)
      for (int64_t c = 0; c < h.cols(); ++c) h(r, c) += at(steps[static_cast<size_t>(r)], c);
  }

 private:
  float strength_;
  uint64_t seed_;
};

inline std::vector<int32_t> random_ids(Rng& rng, size_t n) {
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(40));
  return ids;
}

// Prompts that share beginnings: three stems, random tails; some equal, some the beginning of another.
inline std::vector<std::vector<int32_t>> branching_prompts(size_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<std::vector<int32_t>> stems, prompts;
  for (int i = 0; i < 3; ++i) stems.push_back(random_ids(rng, 5 + rng.below(30)));
  for (size_t i = 0; i < n; ++i) {
    std::vector<int32_t> ids = stems[rng.below(3)];
    if (rng.below(5) == 0) ids.resize(1 + rng.below(ids.size()));
    const std::vector<int32_t> tail = random_ids(rng, rng.below(25));
    ids.insert(ids.end(), tail.begin(), tail.end());
    prompts.push_back(i > 3 && rng.below(8) == 0 ? prompts[rng.below(i)] : ids);
  }
  return prompts;
}

template <typename F>
Error error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "nothing was thrown";
  return {Errc::kInternal, ""};
}

}  // namespace saif::test
