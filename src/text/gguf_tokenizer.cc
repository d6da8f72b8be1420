// The keys tokenizer.ggml.* of a GGUF file.
#include <algorithm>

#include "formats/gguf.h"
#include "text/tokenizer_data.h"

namespace saif {
namespace {

constexpr const char* kPrefix = "tokenizer.ggml.";

std::optional<int32_t> find_id(const GgufView& file, const char* key) {
  const auto found = file.find_int(std::string(kPrefix) + key);
  // -1 (as an integer of 32 bits, with or without a sign) says that there is none.
  if (!found || *found < 0 || *found == UINT32_MAX) return std::nullopt;
  return static_cast<int32_t>(std::min<int64_t>(*found, INT32_MAX));
}

}  // namespace

TokenizerData read_gguf_tokenizer(const GgufView& file) {
  const auto key = [](const char* name) { return std::string(kPrefix) + name; };
  TokenizerData data;
  data.model = file.require_string(key("model"));
  data.pre = file.find_string(key("pre")).value_or("");
  data.tokens = file.require_strings(key("tokens"));
  for (const int64_t type : file.find_ints(key("token_type")).value_or(std::vector<int64_t>())) {
    if (type < 0 || type > 6) {
      throw Error(Errc::kBadFormat, file.source() + ": " + kPrefix + "token_type holds " + std::to_string(type) +
                                        ", expected 1 (normal) to 6 (byte)");
    }
    data.types.push_back(type == 0 ? TokenType::kNormal : static_cast<TokenType>(type));
  }
  data.scores = file.find_numbers(key("scores")).value_or(std::vector<float>());
  if (const auto* merges = file.find_strings(key("merges"))) data.merges = *merges;
  data.bos_id = find_id(file, "bos_token_id");
  data.eos_id = find_id(file, "eos_token_id");
  data.eot_id = find_id(file, "eot_token_id");
  data.eom_id = find_id(file, "eom_token_id");
  data.unk_id = find_id(file, "unknown_token_id");
  data.pad_id = find_id(file, "padding_token_id");
  data.add_bos = file.find_bool(key("add_bos_token"));
  data.add_eos = file.find_bool(key("add_eos_token"));
  data.add_space_prefix = file.find_bool(key("add_space_prefix"));
  data.chat_template = file.find_string("tokenizer.chat_template").value_or("");
  return data;
}

}  // namespace saif
