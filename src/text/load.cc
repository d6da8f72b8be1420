// Tokenizer::load: what the files of a model say about its tokenizer.
#include "base/file.h"
#include "formats/gguf.h"
#include "text/gguf_tokenizer.h"
#include "text/hf.h"

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
    ids.push_back(static_cast<int32_t>(id.as_int()));
  }
  return ids;
}

TokenizerParts parts_of_folder(const std::string& folder) {
  TokenizerParts parts;
  parts.source = folder + "/tokenizer.json";
  if (!file_exists(parts.source)) {
    const bool sentencepiece = file_exists(folder + "/tokenizer.model");
    throw Error(Errc::kNotFound,
                parts.source + ": no such file" +
                    (sentencepiece ? " (there is a tokenizer.model); write it with Transformers: "
                                     "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
                                   : ", expected the tokenizer of a Hugging Face model folder; download it"));
  }
  parts.tokenizer_json = read_file(parts.source);

  const std::string config_path = folder + "/tokenizer_config.json";
  if (const auto config = read_optional(config_path)) {
    parts.bos_token = token_text(*config, "bos_token", config_path);
    parts.eos_token = token_text(*config, "eos_token", config_path);
    parts.unk_token = token_text(*config, "unk_token", config_path);
    parts.pad_token = token_text(*config, "pad_token", config_path);
    if (const Json* chat = config->find("chat_template")) parts.chat_template = template_text(*chat, config_path);
  }
  const std::string template_json = folder + "/chat_template.json";
  if (const auto config = read_optional(template_json)) {
    parts.chat_template = template_text(config->at("chat_template"), template_json);
  }
  const std::string template_path = folder + "/chat_template.jinja";
  if (file_exists(template_path)) parts.chat_template = read_file(template_path);

  for (const char* name : {"/generation_config.json", "/config.json"}) {
    const auto config = read_optional(folder + name);
    if (!config) continue;
    parts.stop_ids = eos_ids(*config, folder + name);
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
  return make_tokenizer(parts_of_gguf(read_gguf_tokenizer(file.view()), path));
}

}  // namespace saif
