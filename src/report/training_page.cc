// The page of one training: curves of metrics.jsonl and densities of metrics.json.
#include <algorithm>
#include <cmath>
#include <fstream>

#include "base/file.h"
#include "report/html.h"
#include "report/style.h"
#include "report/svg.h"
#include "report/values.h"
#include "saif/sweep.h"

namespace saif::report {
namespace {

constexpr double kLeft = 58, kRight = 410, kTop = 26, kBottom = 170;

struct Curve {
  const char *key, *title;
};
constexpr Curve kCurves[] = {{"loss", "Loss, in squared scales of the rows"},
                             {"fvu", "FVU of the batch"},
                             {"l0", "L0"},
                             {"dead", "Dead latents, share"},
                             {"tokens_per_s", "Tokens per second"}};

std::string label(double value) { return value >= 1000 ? fixed(value, 0) : short_number(value); }

void frame(Html& page, const std::string& title) {
  page.open("figure").open("svg",
                           {{"viewBox", "0 0 420 220"}, {"width", "420"}, {"role", "img"}, {"aria-label", title}});
  draw_text(page, {0, 14, "start", "axis"}, title);
}

void draw_curve(Html& page, const std::vector<Json>& rows, const Curve& curve) {
  std::vector<std::pair<double, double>> points;
  double top = 0;
  for (const Json& row : rows) {
    const auto step = number(row, "step"), value = number(row, curve.key);
    if (!step || !value) continue;
    points.emplace_back(*step, *value);
    top = std::max(top, *value);
  }
  if (points.empty()) return;
  if (top <= 0) top = 1;
  const Range x{0, std::max(1.0, points.back().first), kLeft, kRight}, y{0, top, kBottom, kTop};
  frame(page, curve.title);
  for (const double share : {0.0, 0.5, 1.0}) {
    draw_line(page, kLeft, y.at(share * top), kRight, y.at(share * top), "grid");
    draw_text(page, {kLeft - 6, y.at(share * top) + 4, "end", "tick"}, label(share * top));
    draw_text(page, {x.at(share * x.high), kBottom + 17, "middle", "tick"}, label(std::round(share * x.high)));
  }
  draw_text(page, {(kLeft + kRight) / 2, kBottom + 35, "middle", "axis"}, "step");
  std::string line;
  for (const auto& [step, value] : points) line += pixels(x.at(step)) + "," + pixels(y.at(value)) + " ";
  page.leaf(
      "polyline",
      {{"points", line}, {"class", "m-saif"}, {"fill", "none"}, {"stroke", "currentColor"}, {"stroke-width", "1.5"}});
  page.close().close().line();
}

void draw_densities(Html& page, const Json& metrics) {
  const Json* density = metrics.find("density_histogram");
  if (density == nullptr || !density->is_object()) return;
  const std::vector<Json> bins = list(*density, "bins");
  double top = 1, low = -1;
  for (const Json& bin : bins) {
    top = std::max(top, number(bin, "latents").value_or(0));
    low = std::min(low, number(bin, "log10_low").value_or(0));
  }
  const Range x{low, 0, kLeft, kRight}, y{0, top, kBottom, kTop};
  frame(page, "Latents by share of held-out tokens on which they fire");
  for (const Json& bin : bins) {
    const double from = x.at(number(bin, "log10_low").value_or(0)), to = x.at(number(bin, "log10_high").value_or(0));
    const double height = y.at(number(bin, "latents").value_or(0));
    page.leaf("rect", {{"x", pixels(from + 1)},
                       {"y", pixels(height)},
                       {"width", pixels(to - from - 2)},
                       {"height", pixels(kBottom - height)},
                       {"class", "m-saif"},
                       {"fill", "currentColor"}});
  }
  for (const double share : {0.0, 0.5, 1.0}) {
    draw_text(page, {kLeft - 6, y.at(share * top) + 4, "end", "tick"}, short_number(std::round(share * top)));
  }
  for (double decade = std::ceil(low); decade <= 0; ++decade) {
    draw_text(page, {x.at(decade), kBottom + 17, "middle", "tick"}, short_number(std::pow(10.0, decade)));
  }
  draw_text(page, {(kLeft + kRight) / 2, kBottom + 35, "middle", "axis"},
            "share of tokens; " + short_number(number(*density, "never").value_or(0)) + " latents never fired");
  page.close().close().line();
}

void final_table(Html& page, const Json& metrics) {
  constexpr std::pair<const char*, const char*> kRows[] = {
      {"l0", "L0: active latents per token"},
      {"fvu", "FVU: fraction of variance unexplained"},
      {"explained_variance", "Explained variance"},
      {"dead", "Dead: share of latents that never fired"},
      {"dense", "Dense: share of latents that fired on more than a tenth of the tokens"},
      {"ce_clean", "Cross-entropy of the model, nats per token"},
      {"ce_sae", "the same with the reconstruction spliced in"},
      {"ce_zero", "the same with zeros in its place"},
      {"loss_recovered", "Loss recovered"},
      {"steps", "Training steps"},
      {"training_tokens", "Training tokens"},
      {"tokens_per_s", "Tokens per second"}};
  page.open("div", {{"class", "table"}}).open("table").open("tbody");
  for (const auto& [key, title] : kRows) {
    const auto value = number(metrics, key);
    if (!value) continue;
    page.open("tr").element("th", title).element("td", label(*value)).close().line();
  }
  page.close().close().close().line();
}

}  // namespace
}  // namespace saif::report

namespace saif {

void write_training_page(const std::string& folder) {
  using namespace report;
  const Json metrics = read_json_file(folder + "/metrics.json");
  std::vector<Json> rows;
  std::ifstream in(folder + "/metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    Result<Json> row = parse_json(line);
    if (row.ok() && row.value().is_object()) rows.push_back(row.value());
  }
  Html page;
  page.raw("<!doctype html>\n").open("html", {{"lang", "en"}}).open("head");
  page.leaf("meta", {{"charset", "utf-8"}}).element("title", "Training of an SAE");
  page.open("style").raw(page_style()).close().close().line().open("body");
  page.open("header")
      .element("h1", "Training of an SAE")
      .element("p", folder, {{"class", "lead"}})
      .close()
      .open("main");
  page.element("h2", "On held-out documents");
  final_table(page, metrics);
  page.open("div", {{"class", "charts"}});
  draw_densities(page, metrics);
  page.close().element("h2", "While training").open("div", {{"class", "charts"}});
  for (const Curve& curve : kCurves) draw_curve(page, rows, curve);
  page.close();
  write_file_atomically(folder + "/training.html", page.finish());
}

}  // namespace saif
