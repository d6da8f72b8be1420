// One latent: the texts in which it is strongest, how often and how strongly it fires, its neighbours and its words.
#include <algorithm>
#include <cmath>

#include "report/sections.h"
#include "report/svg.h"
#include "report/values.h"

namespace saif::report {
namespace {

constexpr double kLevels = 4;  // of highlighting

double at_least_zero(double x) { return std::isfinite(x) ? std::max(0.0, x) : 0.0; }

double number_at(const Json::Array& values, size_t i) {
  return i < values.size() && values[i].is_number() ? at_least_zero(values[i].as_double()) : 0.0;
}

// Breaks are drawn and kept: a token may be nothing else.
std::string shown(const std::string& token) {
  std::string out;
  for (const char c : token) {
    if (c == '\n') out += "↵";
    out += c;
  }
  return out;
}

void context_item(Html& page, const Json& context, double maximum) {
  const auto &tokens = list(context, "tokens"), &activations = list(context, "activations");
  const auto peak_number = number(context, "peak");
  const auto peak = peak_number && *peak_number >= 0 && *peak_number < static_cast<double>(tokens.size())
                        ? static_cast<size_t>(*peak_number)
                        : tokens.size();
  page.open("li").element("span", fixed(number_at(activations, peak), 1), {{"class", "value"}});
  page.open("p", {{"dir", "auto"}});
  for (size_t t = 0; t < tokens.size(); ++t) {
    if (!tokens[t].is_string() || tokens[t].as_string().empty()) continue;
    const double value = number_at(activations, t);
    const std::string text = shown(tokens[t].as_string());
    if (value <= 0 && t != peak) {
      page.text(text);
      continue;
    }
    const double level = std::clamp(std::ceil(kLevels * value / std::max(maximum, value)), 1.0, kLevels);
    page.element(t == peak ? "mark" : "span", text,
                 {{"class", "a" + fixed(level, 0)}, {"title", "activation " + fixed(value, 2)}});
  }
  page.close().close().line();
}

void histogram(Html& page, const Json& explained, double maximum) {
  const auto& bins = list(explained, "histogram");
  if (bins.empty()) return;
  constexpr double kWidth = 260, kHeight = 70, kBase = 60;
  double most = 0;
  std::string counts;
  for (const Json& bin : bins) {
    const double n = at_least_zero(number(bin, "tokens").value_or(0));
    most = std::max(most, n);
    counts += (counts.empty() ? "" : ", ") + short_number(n);
  }
  if (most <= 0) return;
  page.open("svg", {{"viewBox", "0 0 260 76"},
                    {"class", "small"},
                    {"width", "260"},
                    {"height", "76"},
                    {"role", "img"},
                    {"aria-label", "Tokens by activation, from 0 to " + fixed(maximum, 1) + ": " + counts}});
  const double step = kWidth / static_cast<double>(bins.size());
  for (size_t b = 0; b < bins.size(); ++b) {
    const double n = at_least_zero(number(bins[b], "tokens").value_or(0));
    const double height = n > 0 ? std::max(2.0, (kBase - 14) * std::log1p(n) / std::log1p(most)) : 0.0;
    page.open("rect", {{"class", "bar"},
                       {"x", pixels(static_cast<double>(b) * step + 1)},
                       {"y", pixels(kBase - height)},
                       {"width", pixels(step - 2)},
                       {"height", pixels(height)}});
    page.element("title", short_number(n) + " tokens, activation " + fixed(number(bins[b], "low"), 1) + " to " +
                              fixed(number(bins[b], "high"), 1));
    page.close();
    if (n > 0) {
      draw_text(page, {(static_cast<double>(b) + 0.5) * step, kBase - height - 3, "middle", ""}, short_number(n));
    }
  }
  draw_line(page, 0, kBase, kWidth, kBase, "grid");
  draw_text(page, {0, kHeight + 4, "start", ""}, "0");
  draw_text(page, {kWidth, kHeight + 4, "end", ""}, fixed(maximum, 1));
  page.close().line();
}

std::string neighbours(const Json& explained, std::string_view key, std::string_view measure) {
  std::string out;
  for (const Json& n : list(explained, key)) {
    out += (out.empty() ? "" : ", ") + short_number(number(n, "index")) + " (" + fixed(number(n, measure), 2) + ")";
  }
  return out.empty() ? std::string(kAbsent) : out;
}

std::string words_of(const Json& proximity) {
  std::string out;
  for (const Json& word : list(proximity, "words")) {
    if (word.is_string()) out += (out.empty() ? "" : ", ") + word.as_string();
  }
  return out;
}

void facts(Html& page, const Json& explained) {
  const auto fact = [&](std::string_view what, const std::string& value) {
    page.element("dt", what).element("dd", value).line();
  };
  page.open("dl", {{"class", "facts"}});
  if (const Json* density = explained.find("text_density"); density && density->is_object()) {
    const auto ci = interval(*density, "ci");
    std::string share = fixed(number(*density, "share"), 4);
    if (ci) share += " [" + fixed(ci->low, 4) + ", " + fixed(ci->high, 4) + "]";
    fact("fires on", share + " of " + short_number(number(*density, "n")) + " tokens");
  }
  fact("same direction", neighbours(explained, "nearest", "cosine"));
  fact("fires with", neighbours(explained, "coactive", "jaccard"));
  const Json* proximity = explained.find("proximity");
  if (proximity && proximity->is_object() && !list(*proximity, "words").empty()) {
    const auto p = [&](std::string_view key) {
      const auto value = number(*proximity, key);
      return value ? p_text(*value) : std::string(kAbsent);
    };
    fact("words", "cosine " + fixed(number(*proximity, "cosine"), 3) + ", p " + p("p_latents") +
                      " against random latents, " + p("p_words") + " against random words");
    fact("nearest word",
         text(*proximity, "nearest_word") + " (" + fixed(number(*proximity, "nearest_cosine"), 2) + ")");
    fact("of", words_of(*proximity));
  }
  page.close().line();
}

}  // namespace

void latent_page(Html& page, const Json& latent) {
  const Json* explained = latent.find("explained");
  if (!explained || !explained->is_object() || explained->size() == 0) return;
  const double maximum = at_least_zero(number(*explained, "maximum").value_or(0));
  page.open("details", {{"class", "latent card"}}).open("summary");
  page.element("b", "Latent " + short_number(number(latent, "index")));
  for (const Json& entry : list(*explained, "top")) {
    page.element("span", visible_token(text(entry, "token")), {{"class", "token"}}).raw(" ");
  }
  page.close().open("div", {{"class", "columns"}}).open("div");
  page.element("h4", "Where it is strongest (the peak is underlined)").open("ol", {{"class", "contexts"}}).line();
  for (const Json& context : list(*explained, "contexts")) context_item(page, context, maximum);
  if (list(*explained, "contexts").empty()) page.element("li", "It fires on none of the texts.");
  page.close().close().open("div").element("h4", "Tokens by activation (heights: logarithm)").line();
  histogram(page, *explained, maximum);
  facts(page, *explained);
  page.close().close().close().line();
}

}  // namespace saif::report
