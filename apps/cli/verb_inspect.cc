#include <filesystem>

#include "saif/task.h"
#include "saif/vector.h"
#include "study_tools.h"
#include "verbs.h"

namespace saif::cli {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string path, model, site;
  bool no_check = false;
};

Json inspect_model(const std::string& path) {
  const auto model = Model::load(path);
  Json out =
      Json::object({{"kind", "model"}, {"name", model->name()}, {"path", model->path()}, {"dtype", model->dtype()}});
  out["architecture"] = model->architecture().to_json();
  out["notes"] = Json(model->notes());
  const auto tokenizer = Tokenizer::load(model->path());
  out["tokenizer"] = Json::object({{"vocab", tokenizer->vocab_size()},
                                   {"stop_ids", tokenizer->stop_ids()},
                                   {"chat_template", tokenizer->has_chat_template()}});
  return out;
}

// With a model at hand the acceptance check runs too.
Json inspect_sae(const Context& context, const Options& o) {
  const auto sae = Sae::load(o.path);
  Json out = Json::object({{"kind", "sae"}, {"path", sae->path()}});
  const Json config = sae->config().to_json();
  for (const auto& [key, value] : config.members()) out[key == "kind" ? "architecture" : key] = value;
  out["sha256"] = sae->sha256();
  if (!o.model.empty()) {
    const Loaded loaded = load_engine(o.model);
    AcceptanceOptions options;
    options.enforce = !o.no_check;
    options.site = o.site;
    out["check"] = check_sae(*sae, *loaded.engine, options, context.control).to_json();
  }
  return out;
}

Json inspect_vector(const std::string& path) {
  const SteeringVector v = SteeringVector::load(path);
  const char* const positions[] = {"generated", "all", "last"};
  return Json::object({{"kind", "vector"},
                       {"site", v.site},
                       {"op", v.op == EditOp::kAdd ? "add" : "project"},
                       {"positions", positions[static_cast<int>(v.positions)]},
                       {"d_model", static_cast<int64_t>(v.vector.size())},
                       {"norm", v.norm()},
                       {"scale", v.scale},
                       {"decay", v.decay},
                       {"norm_preserving", v.norm_preserving},
                       {"origin", v.origin}});
}

Json inspect_study(const std::string& path) {
  const auto study = Study::open(path, Study::Mode::kReadOnly);
  Json tasks = Json::array();
  for (const std::string& name : study->tasks()) {
    Json layers = Json::array();
    for (const Discovery& d : study->discoveries(name)) layers.push_back(d.site + " " + d.placement);
    tasks.push_back(Json::object(
        {{"task", name}, {"discoveries", layers}, {"cells", static_cast<int64_t>(study->cells(name).size())}}));
  }
  return Json::object({{"kind", "study"}, {"tasks", tasks}, {"manifest", study->manifest()}});
}

Json inspect_tokenizer(const std::string& path) {
  const auto tokenizer = Tokenizer::load(path);
  return Json::object({{"kind", "tokenizer"},
                       {"vocab", tokenizer->vocab_size()},
                       {"stop_ids", tokenizer->stop_ids()},
                       {"chat_template", tokenizer->has_chat_template()}});
}

Json inspect_any(const Context& context, const Options& o) {
  const fs::path path(o.path);
  if (fs::is_directory(path)) {
    if (fs::exists(path / "results.sqlite")) return inspect_study(o.path);
    if (Sae::recognises(o.path)) return inspect_sae(context, o);
    if (fs::exists(path / "config.json")) return inspect_model(o.path);
    if (fs::exists(path / "tokenizer.json") || fs::exists(path / "tokenizer.model")) return inspect_tokenizer(o.path);
    return inspect_sae(context, o);
  }
  if (Sae::recognises(o.path)) return inspect_sae(context, o);
  if (fs::exists(path) && (path.filename() == "tokenizer.json" || path.filename() == "tokenizer.model")) {
    return inspect_tokenizer(fs::absolute(path).parent_path().string());
  }
  const std::string extension = path.extension().string();
  if (fs::exists(path) && (extension == ".npz" || extension == ".pt" || extension == ".bin")) {
    return inspect_sae(context, o);
  }
  if (fs::exists(path) && extension != ".gguf") return inspect_vector(o.path);
  return inspect_model(o.path);
}

void print_tree(const Json& json, const std::string& indent) {
  for (const auto& [key, value] : json.members()) {
    if (value.is_object() && value.size() > 0) {
      print_line(indent + key);
      print_tree(value, indent + "  ");
    } else {
      print_line(indent + key + ": " + (value.is_string() ? value.as_string() : value.dump()));
    }
  }
}

}  // namespace

void add_inspect(CLI::App& root, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* verb =
      add_verb(root, context, "inspect", "What a model, SAE, vector, tokenizer or study is; runs its checks");
  verb->add_option("path", o->path, "a folder, a file or a model's short name")->required();
  verb->add_option("--model", o->model, "for an SAE: run its acceptance check in this model");
  verb->add_option("--site", o->site, "check the SAE at this site instead of the one that it names");
  verb->add_flag("--no-check", o->no_check, "with --model: measure, but refuse nothing");
  verb->callback([o, &context] {
    const Json out = inspect_any(context, *o);
    if (context.json) {
      print_json(out);
    } else {
      print_tree(out, "");
    }
  });
}

}  // namespace saif::cli
