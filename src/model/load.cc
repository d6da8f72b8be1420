#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/file.h"
#include "model/bind.h"
#include "model/families/family.h"
#include "model/loaded_model.h"

namespace saif {
namespace {

struct ShortName {
  std::string_view name, file, title;
};
constexpr std::array kShortNames = {
    ShortName{"smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2 135M Instruct"},
};

std::string base_name(const std::string& path) {
  const std::filesystem::path p(path);
  return (p.has_filename() ? p : p.parent_path()).stem().string();
}

// How weights and activations meet. `quantised` says whether the file holds block types.
struct Precision {
  std::string dtype;
  BindOptions bind;
};

// Bytes of all tensors of block types in bfloat16.
int64_t widened_bytes(const TensorSource& source) {
  int64_t bytes = 0;
  for (const SourceTensor& tensor : source.tensors()) {
    if (info_of(tensor.type).block > 1) bytes += 2 * tensor.elements();
  }
  return bytes;
}

bool keeps_blocks(const LoadOptions& options, const TensorSource& source, const BackendFactory& backend) {
  constexpr int64_t kMostWidened = int64_t{4} << 30;
  const std::string& quantised = options.quantised;
  if (quantised == "keep" || quantised == "int8") return true;
  if (quantised == "widen") return false;
  if (quantised == "auto") {
    return backend()->has_fast_bf16() && !(options.many_rows && widened_bytes(source) <= kMostWidened);
  }
  throw Error(Errc::kInvalidArgument, "quantised \"" + quantised + "\": expected auto, keep, widen or int8");
}

Precision choose_precision(const LoadOptions& options, const BackendFactory& backend) {
  if (options.dtype == "bf16") return {"bf16", {Compute::kBf16, DType::kBf16}};
  if (options.dtype == "f32") return {"f32", {Compute::kF32, DType::kF32}};
  if (options.dtype != "auto") {
    throw Error(Errc::kInvalidArgument, "dtype \"" + options.dtype + "\": expected auto, bf16 or f32");
  }
  if (backend()->has_fast_bf16()) return {"bf16", {Compute::kBf16, DType::kBf16}};
  // Quantised weights carry at most 8 significant bits: bfloat16 halves their memory and the time to read it.
  return {"f32", {Compute::kF32, DType::kBf16}};
}

DType kv_dtype(const std::string& kv, const Precision& precision, const Backend& backend, int64_t d_head) {
  if (kv == "f32") return DType::kF32;
  if (kv == "bf16") return DType::kBf16;
  if (kv != "auto") throw Error(Errc::kInvalidArgument, "kv \"" + kv + "\": expected auto, f32 or bf16");
  const bool bf16 = precision.bind.compute != Compute::kF32 && backend.has_bf16_attention(d_head);
  return bf16 ? DType::kBf16 : DType::kF32;
}

bool resident(const std::string& weights) {
  if (weights != "mapped" && weights != "resident") {
    throw Error(Errc::kInvalidArgument, "weights \"" + weights + "\": expected mapped or resident");
  }
  return weights == "resident";
}

void check_int8(const Precision& precision, const BackendFactory& backend) {
  if (!backend()->has_int8()) {
    throw Error(Errc::kUnsupported,
                "quantised \"int8\": this CPU has no dot products of 8 bits (AVX512-VNNI); use keep");
  }
  if (precision.bind.compute == Compute::kF32) {
    throw Error(Errc::kInvalidArgument, "quantised \"int8\" and dtype \"f32\" exclude each other: leave one out");
  }
}

Json scalar_json(const GgufValue& value) {
  if (const auto* i = std::get_if<int64_t>(&value.value)) return *i;
  if (const auto* d = std::get_if<double>(&value.value)) return *d;
  if (const auto* b = std::get_if<bool>(&value.value)) return *b;
  if (const auto* s = std::get_if<std::string_view>(&value.value)) return *s;
  if (const auto* a = std::get_if<GgufArray>(&value.value)) {
    const bool integers = a->element != GgufType::kF32 && a->element != GgufType::kF64 &&
                          a->element != GgufType::kBool && a->element != GgufType::kString &&
                          a->element != GgufType::kArray;
    Json items = Json::array();
    for (size_t i = 0; integers && i < a->size; ++i) items.push_back(a->int_at(i));
    return items;
  }
  return {};
}

// The keys "llama.*" without their prefix, as a config.
Json gguf_config(const GgufView& view, const std::string& architecture) {
  const std::string prefix = architecture + ".";
  Json config = Json::object();
  std::string unknown;
  for (const auto& [key, value] : view.metadata()) {
    if (key.starts_with(prefix)) {
      config[key.substr(prefix.size())] = scalar_json(value);
    } else if (key == "split.count") {
      if (view.find_int(key).value_or(1) > 1) {
        throw Error(Errc::kUnsupported,
                    view.source() + ": one of several split files; merge them with llama-gguf-split");
      }
    } else if (!key.starts_with("general.") && !key.starts_with("tokenizer.") && !key.starts_with("quantize.") &&
               !key.starts_with("split.")) {
      unknown += (unknown.empty() ? "\"" : ", \"") + std::string(key) + "\"";
    }
  }
  if (!unknown.empty()) {
    throw Error(Errc::kUnsupported, view.source() + ": unknown key " + unknown + "; expected general.*, tokenizer.*, " +
                                        "quantize.* or " + prefix + "*");
  }
  return config;
}

struct Opened {
  TensorSource source;
  ModelPlan plan;
  std::string name;
  std::vector<std::string> files;
  std::vector<std::string> notes;
};

void add_config_notes(const ConfigReader& config, std::vector<std::string>& notes) {
  for (const std::string& key : config.ignored()) notes.push_back("config key ignored: " + key);
}

Opened open_folder(const std::string& path) {
  const std::string config_path = path + "/config.json";
  if (!file_exists(config_path)) {
    throw Error(Errc::kNotFound, path + ": no config.json; expected a Hugging Face model folder or a .gguf file");
  }
  if (!SafetensorsFolder::present(path)) {
    throw Error(Errc::kNotFound, path +
                                     ": no model.safetensors and no model.safetensors.index.json; other forms of "
                                     "weights (.bin, .pt) have to be converted to safetensors");
  }
  const SafetensorsFolder folder = SafetensorsFolder::open(path);
  ConfigReader config(config_path, read_json_file(config_path));
  const std::string model_type = config.text("model_type");
  const Family& family = family_of_model_type(model_type);
  TensorSource source(folder);
  ModelPlan plan = family.from_config(config, model_type, source);
  plan.arch.family = family.name;
  config.finish();
  Opened opened{std::move(source), std::move(plan), base_name(path), {}, {}};
  for (const SafetensorsFile& file : folder.files()) opened.files.push_back(file.path());
  add_config_notes(config, opened.notes);
  return opened;
}

Opened open_gguf(const std::string& path) {
  const GgufFile file = GgufFile::open(path);
  const std::string architecture(file->require_string("general.architecture"));
  const Family& family = family_of_gguf(architecture);
  TensorSource source(file);
  ConfigReader config(path + ": " + architecture, gguf_config(file.view(), architecture));
  ModelPlan plan = family.from_gguf(config, source);
  plan.arch.family = family.name;
  config.finish();
  std::string name(file->find_string("general.name").value_or(base_name(path)));
  const std::string file_name = std::filesystem::path(path).filename().string();
  for (const ShortName& known : kShortNames) {
    if (file_name == known.file) name = known.title;
  }
  Opened opened{std::move(source), std::move(plan), std::move(name), {path}, {}};
  add_config_notes(config, opened.notes);
  return opened;
}

}  // namespace

std::string resolve_model(const std::string& path_or_name) {
  if (path_or_name.empty()) throw Error(Errc::kInvalidArgument, "no model is named");
  if (file_exists(path_or_name) || directory_exists(path_or_name)) return path_or_name;
  std::string known;
  for (const ShortName& model : kShortNames) {
    if (model.name == path_or_name) {
      std::string path = cache_directory() + "/models/" + std::string(model.file);
      if (file_exists(path)) return path;
      throw Error(Errc::kNotFound, "model \"" + path_or_name + "\": " + path +
                                       " is not there; run `make setup`, or put the file of that name there");
    }
    known += (known.empty() ? "" : ", ") + std::string(model.name);
  }
  throw Error(Errc::kNotFound,
              "model \"" + path_or_name + "\": no such file or folder, and no short name; short names are: " + known);
}

std::shared_ptr<const LoadedModel> load_model(const std::string& path_or_name, const LoadOptions& options,
                                              const BackendFactory& backend) {
  const std::string path = resolve_model(path_or_name);
  Precision precision = choose_precision(options, backend);
  precision.bind.resident = resident(options.weights);
  if (options.quantised == "int8") check_int8(precision, backend);
  Opened opened = directory_exists(path) ? open_folder(path) : open_gguf(path);
  precision.bind.keep_blocks = keeps_blocks(options, opened.source, backend);
  opened.source.expect_all();
  LoadedModel::Parts parts;
  try {
    parts.weights = bind_weights(opened.plan, opened.source, precision.bind, opened.notes);
  } catch (const Error& error) {
    throw Error(error.code(), path + ": " + error.what());
  }
  parts.arch = std::move(opened.plan.arch);
  parts.arch.kv_dtype = kv_dtype(options.kv, precision, *backend(), parts.arch.d_head);
  parts.path = path;
  parts.name = std::move(opened.name);
  parts.dtype = precision.dtype;
  parts.files = std::move(opened.files);
  parts.notes = std::move(opened.notes);
  parts.source = std::move(opened.source);
  parts.compute = options.quantised == "int8" ? Compute::kInt8 : precision.bind.compute;
  parts.backend = backend;
  return std::make_shared<const LoadedModel>(std::move(parts));
}

std::shared_ptr<const Model> Model::load(const std::string& path_or_name, const LoadOptions& options) {
  const std::string isa = options.isa == "auto" ? "" : options.isa;
  return load_model(path_or_name, options, [isa] { return make_cpu_backend(isa); });
}

}  // namespace saif
