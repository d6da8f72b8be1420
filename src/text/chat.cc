// Chat templates: rendering, and ids in which only the template's special tokens are special.
#include <algorithm>
#include <unordered_map>

#include "text/hf.h"
#include "text/utf8.h"

namespace saif {
namespace {

void require_template(const Tokenizer& tokenizer) {
  if (tokenizer.has_chat_template()) return;
  throw Error(
      Errc::kNotFound,
      "chat template: the model has none (it may be a base model); give plain text, or a model with a template");
}

void require_texts(std::span<const Message> messages) {
  if (messages.empty()) throw Error(Errc::kInvalidArgument, "chat template: no messages, expected at least one");
  for (size_t i = 0; i < messages.size(); ++i) {
    for (const std::string* text : {&messages[i].role, &messages[i].content}) {
      if (const auto at = find_invalid_utf8(*text)) {
        throw Error(Errc::kInvalidArgument, "message " + std::to_string(i) + ": byte " + std::to_string(*at) +
                                                " of its " + (text == &messages[i].role ? "role" : "content") +
                                                " is not UTF-8; convert the text to UTF-8");
      }
    }
  }
}

// The variables that Transformers gives a template.
Json context_of(const Tokenizer& tokenizer, std::span<const Message> messages, bool add_generation_prompt) {
  Json list = Json::array();
  for (const Message& message : messages) {
    list.push_back(Json::object({{"role", message.role}, {"content", message.content}}));
  }
  Json context = Json::object({{"messages", std::move(list)},
                               {"tools", nullptr},
                               {"documents", nullptr},
                               {"add_generation_prompt", add_generation_prompt}});
  if (const auto* loaded = dynamic_cast<const LoadedTokenizer*>(&tokenizer)) {
    for (const auto& [name, text] : loaded->named_tokens().members()) context[name] = text;
    return context;
  }
  if (const auto bos = tokenizer.bos_id()) context["bos_token"] = tokenizer.piece(*bos);
  if (!tokenizer.stop_ids().empty()) context["eos_token"] = tokenizer.piece(tokenizer.stop_ids().front());
  return context;
}

// Spoils special tokens in what people wrote, so that a rendered text holds those of the template alone: the first
// character of each becomes one that occurs nowhere. Lengths in characters and all else stay, for the template's logic.
class Disguise {
 public:
  Disguise(const std::vector<std::string>& special_texts, std::span<const Message> messages)
      : special_texts_(special_texts), messages_(messages) {}

  std::string put_on(const std::string& text) {
    std::string out;
    for (std::string_view rest = text; !rest.empty();) {
      const Utf8Step step = utf8_step(rest);
      const bool special = std::any_of(special_texts_.begin(), special_texts_.end(),
                                       [&](const std::string& each) { return rest.starts_with(each); });
      out.append(special ? stand_in(step.code) : std::string(rest.substr(0, step.size)));
      rest.remove_prefix(step.size);
    }
    return out;
  }

  std::string take_off(std::string_view text) const {
    std::string out;
    for (std::string_view rest = text; !rest.empty();) {
      const Utf8Step step = utf8_step(rest);
      const auto found = originals_.find(step.code);
      out.append(found != originals_.end() ? utf8_of(found->second) : std::string(rest.substr(0, step.size)));
      rest.remove_prefix(step.size);
    }
    return out;
  }

  bool used() const { return !originals_.empty(); }

 private:
  std::string stand_in(char32_t code) {
    const auto found = stand_ins_.find(code);
    if (found != stand_ins_.end()) return utf8_of(found->second);
    const auto occurs = [this](char32_t candidate) {
      const std::string text = utf8_of(candidate);
      return std::any_of(messages_.begin(), messages_.end(), [&](const Message& each) {
        return each.content.find(text) != std::string::npos || each.role.find(text) != std::string::npos;
      });
    };
    while (occurs(next_)) ++next_;
    stand_ins_[code] = next_;
    originals_[next_] = code;
    return utf8_of(next_++);
  }

  const std::vector<std::string>& special_texts_;
  std::span<const Message> messages_;
  char32_t next_ = 0xF0000;  // a private-use plane: 65,534 characters that no template holds
  std::unordered_map<char32_t, char32_t> stand_ins_, originals_;
};

}  // namespace

std::string render_chat(const Tokenizer& tokenizer, std::span<const Message> messages, bool add_generation_prompt) {
  require_template(tokenizer);
  require_texts(messages);
  return render_template(tokenizer.chat_template(), context_of(tokenizer, messages, add_generation_prompt));
}

std::vector<int32_t> encode_chat(const Tokenizer& tokenizer, std::span<const Message> messages,
                                 bool add_generation_prompt) {
  const std::string rendered = render_chat(tokenizer, messages, add_generation_prompt);
  const auto* loaded = dynamic_cast<const LoadedTokenizer*>(&tokenizer);
  if (loaded == nullptr) {
    throw Error(Errc::kUnsupported, "encode_chat: needs a tokenizer from Tokenizer::load");
  }
  Disguise disguise(loaded->special_texts(), messages);
  std::vector<Message> disguised(messages.begin(), messages.end());
  for (Message& message : disguised) {
    message.role = disguise.put_on(message.role);
    message.content = disguise.put_on(message.content);
  }
  const std::string text = disguise.used() ? render_chat(tokenizer, disguised, add_generation_prompt) : rendered;
  if (disguise.used() && disguise.take_off(text) != rendered) {
    throw Error(
        Errc::kUnsupported,
        "chat template: it acts on a special token that a message spells in its text, so the two cannot be told "
        "apart; remove the special token from the message");
  }
  std::vector<std::string> parts;
  std::vector<int32_t> special_ids;
  size_t from = 0;
  for (const LoadedTokenizer::Piece& piece : loaded->encode_with_ranges(text)) {
    if (!tokenizer.is_special(piece.id)) continue;
    parts.push_back(disguise.take_off(std::string_view(text).substr(from, piece.begin - from)));
    special_ids.push_back(piece.id);
    from = piece.end;
  }
  parts.push_back(disguise.take_off(std::string_view(text).substr(from)));
  return loaded->encode_around(parts, special_ids);
}

}  // namespace saif
