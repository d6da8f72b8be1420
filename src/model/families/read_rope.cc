// Rotation as configs spell it: rope_theta and rope_scaling (Transformers 4) or rope_parameters (5). Where the two
// versions would compute something else from the same keys, or two keys contradict each other, the config is refused.
#include <cmath>
#include <optional>

#include "model/families/family.h"

namespace saif {
namespace {

constexpr std::string_view kOriginal = "original_max_position_embeddings";

// What stands beside the object that holds the scaling.
struct Beside {
  std::optional<int64_t> original;  // kOriginal
  int64_t usual = 0;                // RopeDefaults::original
  bool version4 = false;            // the object is called rope_scaling
};

std::string text_of(double value) { return Json(value).dump(); }

std::vector<float> read_divisors(ConfigReader& scaling, std::string_view key, int64_t n) {
  const Json* value = scaling.find(key);
  std::vector<float> out;
  if (value != nullptr && value->is_array()) {
    for (const Json& item : value->items()) {
      if (!item.is_number() || item.as_double() <= 0) scaling.fail(key, item.dump(), "positive numbers");
      out.push_back(static_cast<float>(item.as_double()));
    }
  }
  if (static_cast<int64_t>(out.size()) != n) {
    scaling.fail(key, std::to_string(out.size()) + " numbers", std::to_string(n) + ", one for each rotated pair");
  }
  return out;
}

// The context before it was stretched, which may stand beside the scaling or in it. Beside it the key wins in
// Transformers 5; 4 reads it there for longrope only, and for longrope nowhere else.
std::optional<int64_t> original_context(ConfigReader& scaling, const Beside& beside) {
  if (!scaling.present(kOriginal)) {
    if (beside.original || beside.usual == 0) return beside.original;
    return beside.usual;
  }
  const int64_t own = scaling.size(kOriginal);
  if (beside.original && *beside.original != own) {
    scaling.conflict(kOriginal, "beside it, it is " + std::to_string(*beside.original), "keep the right one");
  }
  if (!beside.original && beside.usual > 0 && beside.usual != own) {
    scaling.conflict(kOriginal,
                     "Transformers reads that key of this family outside of it and takes " +
                         std::to_string(beside.usual) + " where it is missing",
                     "write it at the config's top level too");
  }
  return own;
}

// Transformers' _compute_yarn_parameters.
void read_yarn(ConfigReader& scaling, const Beside& beside, const Architecture& arch, RopeSpec& rope) {
  if (beside.version4 && beside.original && !scaling.present(kOriginal) && *beside.original != arch.context) {
    scaling.fail(kOriginal, "beside it (" + std::to_string(*beside.original) + ")",
                 "it within, or not at all: Transformers 5 reads it there, 4 takes max_position_embeddings " +
                     std::to_string(arch.context));
  }
  rope.original_context = original_context(scaling, beside).value_or(arch.context);
  rope.factor =
      scaling.number("factor", static_cast<double>(arch.context) / static_cast<double>(rope.original_context));
  rope.beta_fast = scaling.number("beta_fast", 32.0);
  rope.beta_slow = scaling.number("beta_slow", 1.0);
  rope.truncate = scaling.boolean("truncate", true);
  const double mscale = scaling.number("mscale", 0.0), mscale_all = scaling.number("mscale_all_dim", 0.0);
  const auto magnitude = [&](double m) { return rope.factor <= 1 ? 1.0 : 0.1 * m * std::log(rope.factor) + 1.0; };
  const double usual = mscale != 0 && mscale_all != 0 ? magnitude(mscale) / magnitude(mscale_all) : magnitude(1);
  rope.attention_factor = scaling.number("attention_factor", usual);
  if (rope.theta <= 1) scaling.fail("rope_theta", std::to_string(rope.theta), "more than 1 under yarn");
}

// LongRoPE (Ding et al. 2024, arXiv 2402.13753; Transformers' _compute_longrope_parameters).
void read_longrope(ConfigReader& scaling, const Beside& beside, const Architecture& arch, RopeSpec& rope) {
  rope.original_context = original_context(scaling, beside).value_or(arch.context);
  rope.frequency_divisors = read_divisors(scaling, "short_factor", rope.rotary_dim / 2);
  rope.long_divisors = read_divisors(scaling, "long_factor", rope.rotary_dim / 2);
  const double ratio = static_cast<double>(arch.context) / static_cast<double>(rope.original_context);
  rope.factor = scaling.number("factor", ratio);
  const bool same = std::abs(rope.factor - ratio) <= 1e-6 * ratio;
  if (beside.version4 && beside.original && !same && !scaling.present("attention_factor")) {
    scaling.conflict("factor",
                     "max_position_embeddings / " + std::string(kOriginal) + " is " + text_of(ratio) +
                         ", and Transformers 5 takes the first, 4 the second",
                     "remove it, or write the attention_factor");
  }
  if (rope.factor > 1 && rope.original_context < 2) {
    scaling.fail(kOriginal, std::to_string(rope.original_context), "at least 2 under longrope");
  }
  const double usual =
      rope.factor <= 1 ? 1.0
                       : std::sqrt(1 + std::log(rope.factor) / std::log(static_cast<double>(rope.original_context)));
  rope.attention_factor = scaling.number("attention_factor", usual);
}

void read_llama3(ConfigReader& scaling, const Beside& beside, RopeSpec& rope) {
  rope.low_freq_factor = scaling.number("low_freq_factor");
  rope.high_freq_factor = scaling.number("high_freq_factor");
  const std::optional<int64_t> original = original_context(scaling, beside);
  rope.original_context = original ? *original : scaling.size(kOriginal);
  if (rope.low_freq_factor <= 0 || rope.high_freq_factor <= rope.low_freq_factor) {
    scaling.fail("high_freq_factor", std::to_string(rope.high_freq_factor),
                 "more than low_freq_factor, which is above 0");
  }
}

// Its name, by which Transformers 5 goes first by rope_type and 4 by type.
std::string scaling_type(ConfigReader& scaling) {
  const auto plain = [](const std::string& name) { return name == "su" ? "longrope" : name; };  // of early Phi-3 files
  const std::string old = plain(scaling.text("type", "default"));
  std::string type = plain(scaling.text("rope_type", old));
  if (scaling.present("type") && old != type) {
    scaling.conflict("type", "\"rope_type\" is \"" + type + "\"", "keep the right one");
  }
  return type;
}

// The scaling fields, spelled alike in both versions but for the type's key.
void read_scaling(ConfigReader& scaling, const Beside& beside, const Architecture& arch, RopeSpec& rope) {
  const std::string type = scaling_type(scaling);
  if (type == "default") {
    scaling.ignore({kOriginal, "factor"}, "not used by this rope_type");
    return;
  }
  rope.scaling = type;
  if (type == "linear" || type == "llama3") {
    rope.factor = scaling.number("factor");
    if (rope.factor < 1.0) scaling.fail("factor", std::to_string(rope.factor), "at least 1");
  }
  if (type == "linear") {
    scaling.ignore({kOriginal}, "not used by this rope_type");
  } else if (type == "llama3") {
    read_llama3(scaling, beside, rope);
  } else if (type == "yarn") {
    read_yarn(scaling, beside, arch, rope);
  } else if (type == "longrope") {
    read_longrope(scaling, beside, arch, rope);
  } else {
    throw Error(Errc::kUnsupported,
                scaling.source() + ": rope_type \"" + type +
                    "\" is not implemented; implemented are default, linear, llama3, yarn, longrope");
  }
}

// A number that stands beside the object, in it, or in both alike.
double agreed(ConfigReader& config, const char* outer, ConfigReader& parameters, const char* inner, double usual) {
  const double value = parameters.number(inner, config.number(outer, usual));
  if (config.present(outer) && config.number(outer) != value) {
    const std::string where = parameters.source().substr(config.source().size() + 2);
    config.conflict(outer, "\"" + std::string(inner) + "\" in " + where + " is " + text_of(value),
                    "keep the right one");
  }
  return value;
}

int64_t rotated(const ConfigReader& config, double partial, const Architecture& arch, const RopeDefaults& defaults) {
  const auto dim = static_cast<int64_t>(static_cast<double>(arch.d_head) * partial);
  if (!defaults.may_be_partial && partial != 1.0) {
    throw Error(Errc::kUnsupported, config.source() + ": \"" + defaults.partial_key + "\" is " + text_of(partial) +
                                        ", but this family turns whole heads, and Transformers passes over it or "
                                        "fails: remove it");
  }
  if (partial <= 0 || partial > 1 || dim < 2 || dim % 2 != 0) {
    config.fail(defaults.partial_key, std::to_string(partial),
                "a share of the heads' width " + std::to_string(arch.d_head) + " that is even and not 0");
  }
  return dim;
}

void check_theta(const ConfigReader& config, const RopeSpec& rope, const RopeDefaults& defaults) {
  if (rope.theta <= 0) config.fail(defaults.theta_key, std::to_string(rope.theta), "a positive number");
}

}  // namespace

RopeSpec read_layer_rope(ConfigReader& config, ConfigReader& parameters, const Architecture& arch,
                         const RopeDefaults& defaults) {
  RopeSpec rope;
  rope.theta = agreed(config, defaults.theta_key, parameters, "rope_theta", defaults.theta);
  check_theta(config, rope, defaults);
  rope.rotary_dim = rotated(parameters, parameters.number("partial_rotary_factor", defaults.partial), arch, defaults);
  read_scaling(parameters, {}, arch, rope);
  parameters.finish();
  return rope;
}

RopeSpec read_rope(ConfigReader& config, const Architecture& arch, const RopeDefaults& defaults) {
  Beside beside{{}, defaults.original, !config.present("rope_parameters")};
  if (config.present(kOriginal)) beside.original = config.size(kOriginal);
  if (!beside.version4 && config.present("rope_scaling")) {
    throw Error(Errc::kBadFormat, config.source() + ": found rope_scaling and rope_parameters, expected one of them");
  }
  ConfigReader scaling = config.nested(beside.version4 ? "rope_scaling" : "rope_parameters");
  RopeSpec rope;
  double partial = 0;
  if (beside.version4) {
    rope.theta = config.number(defaults.theta_key, defaults.theta);
    partial = config.number(defaults.partial_key, defaults.partial);
  } else {
    rope.theta = agreed(config, defaults.theta_key, scaling, "rope_theta", defaults.theta);
    partial = agreed(config, defaults.partial_key, scaling, "partial_rotary_factor", defaults.partial);
  }
  check_theta(config, rope, defaults);
  rope.rotary_dim = rotated(config, partial, arch, defaults);
  read_scaling(scaling, beside, arch, rope);
  scaling.finish();
  return rope;
}

}  // namespace saif
