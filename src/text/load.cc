// Tokenizer::load: what the files of a model say about its tokenizer.
#include <algorithm>
#include <charconv>
#include <map>

#include "base/file.h"
#include "formats/gguf.h"
#include "text/hf.h"
#include "text/sentencepiece.h"
#include "text/tokenizer_data.h"

namespace saif {
namespace {

std::optional<Json> read_optional(const std::string& path) {
  if (!file_exists(path)) return std::nullopt;
  Json json = read_json_file(path);
  if (!json.is_object()) throw Error(Errc::kBadFormat, path + ": expected a JSON object");
  return json;
}

// "<s>" or {"content": "<s>", ...} or null
std::optional<std::string> token_text(const Json& config, const char* key, const std::string& path) {
  const Json* value = config.find(key);
  if (value != nullptr && value->is_object()) value = value->find("content");
  if (value == nullptr || value->is_null()) return std::nullopt;
  if (!value->is_string())
    throw Error(Errc::kBadFormat, path + ": \"" + key + "\" is neither a text nor has a content");
  return value->as_string();
}

// A text, or a list of {"name", "template"} of which "default" counts.
std::string template_text(const Json& value, const std::string& path) {
  if (value.is_null()) return "";
  if (value.is_string()) return value.as_string();
  if (!value.is_array()) throw Error(Errc::kBadFormat, path + ": \"chat_template\" is neither a text nor a list");
  for (const Json& each : value.items()) {
    if (each.at("name").as_string() == "default") return each.at("template").as_string();
  }
  return "";
}

// A number, a list of numbers, or nothing.
std::vector<int32_t> eos_ids(const Json& config, const std::string& path) {
  const Json* value = config.find("eos_token_id");
  if (value == nullptr || value->is_null()) return {};
  std::vector<int32_t> ids;
  const Json::Array one = {*value};
  for (const Json& id : value->is_array() ? value->items() : one) {
    if (!id.is_int() || id.as_int() < 0 || id.as_int() > INT32_MAX) {
      throw Error(Errc::kBadFormat,
                  path + ": \"eos_token_id\" is " + value->dump() + ", expected an id or a list of ids");
    }
    ids.push_back(id.as<int32_t>());
  }
  return ids;
}

std::optional<std::string> token_text(const std::optional<Json>& config, const char* key, const std::string& path) {
  return config ? token_text(*config, key, path) : std::nullopt;
}

// true, false or null; absent as null.
std::optional<bool> flag(const Json& object, const char* key, const std::string& path) {
  const Json* value = object.find(key);
  if (value == nullptr || value->is_null()) return std::nullopt;
  if (!value->is_bool()) {
    throw Error(Errc::kBadFormat, path + ": \"" + key + "\" is " + value->dump() + ", expected true or false");
  }
  return value->as_bool();
}

AddedToken added_token(const std::string& id, const Json& value, const std::string& path) {
  constexpr int32_t kMaxId = 1 << 24;
  AddedToken token;
  const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), token.id);
  const Json* content = value.is_object() ? value.find("content") : nullptr;
  const bool well_formed = error == std::errc() && end == id.data() + id.size() && content != nullptr &&
                           content->is_string() && !content->as_string().empty();
  if (!well_formed || token.id < 0 || token.id > kMaxId) {
    throw Error(Errc::kBadFormat,
                path + ": added token \"" + id + "\": " + value.dump() + ", expected an id and a content");
  }
  token.text = content->as_string();
  token.special = flag(value, "special", path).value_or(false);
  token.single_word = flag(value, "single_word", path).value_or(false);
  token.strips_left = flag(value, "lstrip", path).value_or(false);
  token.strips_right = flag(value, "rstrip", path).value_or(false);
  token.normalized = flag(value, "normalized", path).value_or(!token.special);
  return token;
}

// added_tokens.json: {"<|end|>": 32007, ...}; tokenizer_config.json, which wins: {"added_tokens_decoder": {"32007":
// {"content": "<|end|>", ...}, ...}}.
std::vector<AddedToken> added_tokens(const std::string& folder, const std::optional<Json>& config,
                                     const std::string& config_path) {
  std::map<int32_t, AddedToken> by_id;
  const std::string list_path = folder + "/added_tokens.json";
  if (const auto list = read_optional(list_path)) {
    for (const auto& [text, id] : list->members()) {
      const Json value = Json::object({{"content", text}, {"special", true}});
      const AddedToken token = added_token(id.dump(), value, list_path);
      by_id[token.id] = token;
    }
  }
  const Json* decoder = config ? config->find("added_tokens_decoder") : nullptr;
  if (decoder != nullptr && !decoder->is_null()) {
    if (!decoder->is_object()) {
      throw Error(Errc::kBadFormat, config_path + ": \"added_tokens_decoder\" is no JSON object");
    }
    for (const auto& [id, value] : decoder->members()) {
      const AddedToken token = added_token(id, value, config_path);
      by_id[token.id] = token;
    }
  }
  std::vector<AddedToken> tokens;
  for (auto& [id, token] : by_id) tokens.push_back(std::move(token));
  return tokens;
}

std::optional<int32_t> find_token(const TokenizerData& data, const std::string& text) {
  for (const AddedToken& token : data.added) {
    if (token.text == text) return token.id;
  }
  const auto found = std::find(data.tokens.begin(), data.tokens.end(), text);
  if (found == data.tokens.end()) return std::nullopt;
  return static_cast<int32_t>(found - data.tokens.begin());
}

// The text of tokenizer.json from tokenizer.model, as Transformers converts the tokenizer of Llama.
TokenizerParts parts_of_sentencepiece(const std::string& folder, const std::optional<Json>& config,
                                      const std::string& config_path) {
  const std::string path = folder + "/tokenizer.model";
  TokenizerData data = read_sentencepiece(read_file(path), path);
  data.added = added_tokens(folder, config, config_path);
  for (const auto& [key, id] : {std::pair("bos_token", &data.bos_id), std::pair("eos_token", &data.eos_id),
                                std::pair("unk_token", &data.unk_id), std::pair("pad_token", &data.pad_id)}) {
    const auto text = token_text(config, key, config_path);
    if (!text || text->empty()) continue;  // the model's own
    *id = find_token(data, *text);
    if (!*id && id != &data.pad_id) {
      throw Error(Errc::kBadFormat, config_path + ": \"" + key + "\" is \"" + *text +
                                        "\", which is neither a piece of tokenizer.model nor an added token");
    }
  }
  if (config) {
    data.add_bos = flag(*config, "add_bos_token", config_path);
    data.add_eos = flag(*config, "add_eos_token", config_path);
    if (const auto prefix = flag(*config, "add_prefix_space", config_path)) data.add_space_prefix = prefix;
    data.space_prefix_at_start_only = !flag(*config, "legacy", config_path).value_or(true);
  }
  TokenizerParts parts = parts_of(data, path);
  parts.stop_ids.clear();  // the folder's configurations say them
  return parts;
}

TokenizerParts parts_of_json(const std::string& path, const std::optional<Json>& config,
                             const std::string& config_path) {
  TokenizerParts parts;
  parts.source = path;
  parts.tokenizer_json = read_file(path);
  parts.bos_token = token_text(config, "bos_token", config_path);
  parts.eos_token = token_text(config, "eos_token", config_path);
  parts.unk_token = token_text(config, "unk_token", config_path);
  parts.pad_token = token_text(config, "pad_token", config_path);
  return parts;
}

TokenizerParts parts_of_folder(const std::string& folder) {
  const std::string json_path = folder + "/tokenizer.json", config_path = folder + "/tokenizer_config.json";
  const bool json = file_exists(json_path);
  if (!json && !file_exists(folder + "/tokenizer.model")) {
    throw Error(Errc::kNotFound, json_path +
                                     ": no such file, nor a tokenizer.model beside it; expected the tokenizer "
                                     "of a Hugging Face model folder; download it");
  }
  const auto config = read_optional(config_path);
  TokenizerParts parts =
      json ? parts_of_json(json_path, config, config_path) : parts_of_sentencepiece(folder, config, config_path);
  if (const Json* chat = config ? config->find("chat_template") : nullptr) {
    parts.chat_template = template_text(*chat, config_path);
  }
  const std::string template_json = folder + "/chat_template.json";
  if (const auto chat = read_optional(template_json)) {
    parts.chat_template = template_text(chat->at("chat_template"), template_json);
  }
  const std::string template_path = folder + "/chat_template.jinja";
  if (file_exists(template_path)) parts.chat_template = read_file(template_path);

  for (const char* name : {"/generation_config.json", "/config.json"}) {
    const auto settings = read_optional(folder + name);
    if (!settings) continue;
    parts.stop_ids = eos_ids(*settings, folder + name);
    if (!parts.stop_ids.empty()) break;
  }
  return parts;
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::string& path) {
  if (directory_exists(path)) return make_tokenizer(parts_of_folder(path));
  if (!file_exists(path)) {
    throw Error(Errc::kNotFound, path + ": no such file or folder, expected a model folder or a .gguf file");
  }
  const GgufFile file = GgufFile::open(path);
  return make_tokenizer(parts_of(read_gguf_tokenizer(file.view()), path));
}

}  // namespace saif
