// Seconds in which the trie of many prompts is planned: contents x variants of some 75 tokens, each content and each
// variant shared as a study's prompts share theirs.

#include "engine/trie.h"

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

int main() {
  constexpr int kContents = 100, kVariants = 100, kBefore = 40, kAfter = 35;
  std::mt19937 random(1);
  std::uniform_int_distribution<int32_t> token(0, 49151);
  const auto words = [&](int n) {
    std::vector<int32_t> out(static_cast<size_t>(n));
    for (int32_t& id : out) id = token(random);
    return out;
  };
  std::vector<std::vector<int32_t>> variants(kVariants), prompts;
  for (auto& variant : variants) variant = words(kAfter);
  for (int c = 0; c < kContents; ++c) {
    const std::vector<int32_t> content = words(kBefore);
    for (const auto& variant : variants) {
      prompts.push_back(content);
      prompts.back().insert(prompts.back().end(), variant.begin(), variant.end());
    }
  }
  const auto start = std::chrono::steady_clock::now();
  saif::Trie trie;
  for (const auto& prompt : prompts) trie.insert(prompt);
  trie.finish();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("trie of %zu prompts: %.4f s, %lld of %d tokens computed, %zu nodes\n", prompts.size(), seconds,
              static_cast<long long>(trie.total_tokens()), kContents * kVariants * (kBefore + kAfter),
              trie.nodes().size());
  return 0;
}
