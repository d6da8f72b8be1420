#include <algorithm>
#include <cstdio>
#include <map>

#include "saif/vector.h"
#include "verbs.h"

namespace saif::cli {
namespace {

struct Options {
  std::string model, file, ids, system;
  LoadOptions load;
  std::vector<std::string> prompts, stop, steer;
  int64_t max_tokens = 128;
  SamplingOptions sampling;
  int logprobs = 0;
  int64_t batch = 128;
  bool chat = false, ignore_eos = false;
};

struct Prompt {
  std::string text;
  std::vector<int32_t> ids;
};

std::vector<int32_t> encode_prompt(const Options& o, const Tokenizer& tokenizer, const std::string& text) {
  if (!o.chat) return tokenizer.encode(text, {});
  std::vector<Message> messages;
  if (!o.system.empty()) messages.push_back({"system", o.system});
  messages.push_back({"user", text});
  return encode_chat(tokenizer, messages, true);
}

std::vector<Prompt> gather_prompts(const Options& o, const Tokenizer& tokenizer) {
  std::vector<Prompt> out;
  if (!o.ids.empty()) out.push_back({"", parse_ids(o.ids)});
  std::vector<FilePrompt> given;
  for (const std::string& text : o.prompts) given.push_back({text, {}});
  if (!o.file.empty()) std::ranges::move(read_prompts_or_ids(o.file), std::back_inserter(given));
  for (auto& [text, ids] : given) {
    if (ids.empty()) {
      if (text.empty()) throw Error(Errc::kInvalidArgument, "a prompt is empty; give at least one character");
      ids = encode_prompt(o, tokenizer, text);
    }
    out.push_back({std::move(text), std::move(ids)});
  }
  if (out.empty()) throw UsageError("run: give a prompt with -p, --file or --ids");
  return out;
}

std::vector<AppliedEdit> gather_edits(const Options& o, const Architecture& architecture) {
  std::vector<AppliedEdit> edits;
  for (const std::string& text : o.steer) {
    const SteerArgument argument = parse_steer(text);
    const SteeringVector vector = SteeringVector::load(argument.path);
    try {
      edits.push_back(make_edit(vector, argument.scale, architecture));
    } catch (const Error& e) {
      throw Error(e.code(), argument.path + ": " + e.what());
    }
  }
  return edits;
}

Json logprobs_json(const GenerateResult& result, const Tokenizer& tokenizer) {
  Json out = Json::array();
  for (size_t i = 0; i < result.logprobs.size(); ++i) {
    Json top = Json::array();
    for (const auto& [id, value] : result.logprobs[i].top) {
      top.push_back(Json::object({{"id", id}, {"piece", tokenizer.piece(id)}, {"logprob", value}}));
    }
    out.push_back(Json::object({{"logprob", result.logprobs[i].chosen}, {"top", top}}));
  }
  return out;
}

Json result_json(const Prompt& prompt, const GenerateResult& result, const Options& o, const Tokenizer& tokenizer) {
  Json out =
      Json::object({{"prompt", prompt.text}, {"text", result.text}, {"ids", result.ids}, {"finish", result.finish}});
  if (o.logprobs > 0) out["logprobs"] = logprobs_json(result, tokenizer);
  out["edits"] = Json::object({{"rows", result.edited_rows}, {"vectors", static_cast<int64_t>(o.steer.size())}});
  return out;
}

void run(Context& context, const Options& o) {
  if (!o.system.empty() && !o.chat) throw UsageError("run: --system needs --chat");
  const Loaded loaded = [&] {
    Loaded l = load_engine(o.model, o.load);
    l.engine = std::make_unique<Engine>(l.model, l.tokenizer, EngineOptions{.max_batch = o.batch});
    return l;
  }();
  const std::vector<Prompt> prompts = gather_prompts(o, *loaded.tokenizer);
  const std::vector<AppliedEdit> edits = gather_edits(o, loaded.model->architecture());
  std::vector<GenerateRequest> requests;
  for (const Prompt& prompt : prompts) {
    requests.push_back({.ids = prompt.ids,
                        .max_new_tokens = o.max_tokens,
                        .sampling = o.sampling,
                        .stop = o.stop,
                        .ignore_eos = o.ignore_eos,
                        .logprobs = o.logprobs,
                        .edits = edits,
                        .stream = -1});
  }
  const bool streaming = prompts.size() == 1 && !context.json;
  Engine::OnToken on_token;
  if (streaming) {
    on_token = [](size_t, int32_t, const std::string& text) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    };
  }
  // Answers leave in the order of the prompts, each as soon as those before it are out.
  std::map<size_t, GenerateResult> waiting;
  size_t next = 0;
  const auto on_done = [&](size_t i, const GenerateResult& result) {
    waiting.emplace(i, result);
    for (auto it = waiting.find(next); it != waiting.end(); it = waiting.find(++next)) {
      if (context.json) {
        print_json(result_json(prompts[next], it->second, o, *loaded.tokenizer));
      } else if (streaming) {
        print_line("");
      } else {
        print_line("> " + prompts[next].text + "\n" + it->second.text + "\n");
      }
      waiting.erase(it);
    }
  };
  if (streaming) context.control.on_progress = {};  // the text itself is the progress
  loaded.engine->generate(requests, context.control, on_token, on_done);
}

}  // namespace

void add_run(CLI::App& root, Context& context) {
  auto o = std::make_shared<Options>();
  CLI::App* verb = add_verb(root, context, "run", "Generate text, steered or not");
  verb->add_option("model", o->model, "folder, .gguf file or short name")->required();
  add_texts(verb, "-p,--prompt", o->prompts, "a prompt; several make one batch");
  verb->add_option("--file", o->file, "a prompt per line, or JSON lines with \"prompt\" or \"ids\"");
  verb->add_option("--ids", o->ids, "the prompt as token ids: 1,2,3");
  verb->add_option("--max-tokens", o->max_tokens, "new tokens at most")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  add_options(verb, o->sampling);
  add_texts(verb, "--stop", o->stop, "the text ends before this string; may be repeated");
  verb->add_option("--logprobs", o->logprobs, "report the K likeliest tokens")->capture_default_str();
  verb->add_option("--batch", o->batch, "sequences decoded together")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  verb->add_option("--steer", o->steer, "a steering vector, FILE or FILE:SCALE; may be repeated");
  verb->add_option("--system", o->system, "system message (with --chat)");
  verb->add_flag("--chat", o->chat, "put prompts through the model's chat template");
  verb->add_flag("--ignore-eos", o->ignore_eos, "do not end at end-of-text tokens");
  add_load_flags(verb, o->load);
  verb->callback([o, &context] { run(context, *o); });
}

}  // namespace saif::cli
