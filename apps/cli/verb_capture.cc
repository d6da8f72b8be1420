#include <algorithm>
#include <iterator>

#include "saif/tensor.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct Options {
  std::string model, ids, file, out, positions = "all";
  LoadOptions load{.many_rows = true};
  std::vector<std::string> prompts, sites;
  bool no_special = false;
};

std::vector<FilePrompt> gather(const Options& o) {
  std::vector<FilePrompt> prompts;
  if (!o.ids.empty()) prompts.push_back({"", parse_ids(o.ids)});
  for (const std::string& text : o.prompts) prompts.push_back({text, {}});
  if (!o.file.empty()) std::ranges::move(read_prompts_or_ids(o.file), std::back_inserter(prompts));
  if (prompts.empty()) throw UsageError("capture: give a prompt with -p, --file or --ids");
  return prompts;
}

// A tokenizer is looked for only where there is text.
std::vector<std::vector<int32_t>> encode(std::vector<FilePrompt> prompts, const Options& o, const Model& model) {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::vector<std::vector<int32_t>> ids;
  for (FilePrompt& prompt : prompts) {
    if (prompt.ids.empty()) {
      if (tokenizer == nullptr) tokenizer = Tokenizer::load(model.path());
      prompt.ids = tokenizer->encode(prompt.text, {.add_special = !o.no_special});
    }
    ids.push_back(std::move(prompt.ids));
  }
  return ids;
}

void capture(const Context& context, const Options& o) {
  if (o.positions != "all" && o.positions != "last") {
    throw UsageError("--positions is \"" + o.positions + "\"; expected all or last");
  }
  std::vector<FilePrompt> given = gather(o);
  const std::shared_ptr<const Model> model = Model::load(o.model, o.load);
  const int n_layers = static_cast<int>(model->architecture().n_layers);
  std::vector<Site> sites;
  for (const std::string& name : o.sites) sites.push_back(Site::parse(name, n_layers));
  const auto prompts = encode(std::move(given), o, *model);
  Engine engine(model, nullptr);
  const Engine::Capture captured = engine.capture(prompts, sites, o.positions == "last", context.control);

  std::vector<NamedTensor> tensors;
  Json shapes = Json::object();
  for (const auto& [name, tensor] : captured.sites) {
    tensors.push_back({name, tensor.view()});
    shapes[name] = Json(tensor.shape());
  }
  tensors.push_back(
      {"row_offsets", {DType::kI64, {static_cast<int64_t>(captured.row_offsets.size())}, captured.row_offsets.data()}});
  write_tensor_file(o.out, tensors, {{"saif.model", model->name()}, {"saif.dtype", model->dtype()}});
  if (context.json) return print_json(Json::object({{"tensors", shapes}}));
  std::vector<std::vector<std::string>> rows = {{"site", "shape"}};
  for (const auto& [name, shape] : shapes.members()) rows.push_back({name, shape.dump()});
  print_line(format_table(rows));
}

}  // namespace

void add_capture(CLI::App& root, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* verb = add_verb(root, context, "capture", "Activations at named sites, into a safetensors file");
  verb->add_option("model", o->model, "folder, .gguf file or short name")->required();
  add_texts(verb, "-p,--prompt", o->prompts, "a text; may be repeated");
  verb->add_option("--file", o->file, "a text per line, or JSON lines with \"prompt\", \"text\" or \"ids\"");
  verb->add_option("--ids", o->ids, "token ids: 1,2,3");
  verb->add_option("--site", o->sites, "blocks.24.hook_resid_post, logits, ...; several allowed")
      ->required()
      ->delimiter(',');
  verb->add_option("--positions", o->positions, "all tokens or each text's last")->capture_default_str();
  verb->add_option("--out", o->out, "the safetensors file to write")->required();
  verb->add_flag("--no-special", o->no_special, "add no BOS or other special tokens");
  add_load_flags(verb, o->load);
  verb->callback([o, &context] { capture(context, *o); });
}

}  // namespace saif::cli
