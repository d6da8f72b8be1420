// Success of the methods: the main plot, who wins, and the numbers.
#include <algorithm>
#include <cctype>
#include <optional>

#include "report/sections.h"
#include "report/style.h"
#include "report/svg.h"
#include "report/values.h"
#include "saif/sweep.h"

namespace saif {
namespace report {
namespace {

constexpr double kChance = 0.05;
constexpr std::string_view kAxis = "share of answers that follow the instruction and are fluent (strict)";

// A row that is not part of the comparison: another setting of a method that already stands in it.
bool is_extra(const Json& row) { return truth(row, "extra"); }

std::vector<std::string> methods_of(const Json& report) {
  std::vector<std::string> out;
  for (const Json& task : list(report, "tasks")) {
    for (const Json& row : list(task, "rows")) {
      const std::string key = method_key(row);
      if (!is_extra(row) && std::find(out.begin(), out.end(), key) == out.end()) out.push_back(key);
    }
  }
  return out;
}

DotPlot success_plot(const Json& report, const std::string& id) {
  DotPlot plot;
  plot.id = id;
  plot.title = "Success by method with 95 % intervals";
  plot.description = "The numbers are in the table below.";
  plot.axis = kAxis;
  // Room for the longest title (shortened to kWideTitle letters) in bold type of 14 pixels, and its distance.
  constexpr double kLetter = 8.3, kDistance = 18;
  for (const Json& task : list(report, "tasks")) {
    const size_t letters = std::min(kWideTitle, title_of(task).size());
    plot.label_width = std::max(plot.label_width, kDistance + kLetter * static_cast<double>(letters));
  }
  for (const std::string& key : methods_of(report)) {
    const MethodLook look = look_of(key);
    plot.legend.push_back({std::string(look.name), {std::string(look.style), std::string(look.shape)}});
  }
  for (const Json& task : list(report, "tasks")) {
    DotGroup& group = plot.groups.emplace_back();
    group.title = title_of(task);
    for (const Json& row : list(task, "rows")) {
      const std::optional<double> strict = number(row, "strict");
      if (is_extra(row) || !strict) continue;
      const std::string key = method_key(row);
      const MethodLook look = look_of(key);
      const auto ci = interval(row, "strict_ci");
      const std::string tip = std::string(look.name) + ": " + share_text(*strict, ci);
      group.dots.push_back({std::string(look.style), std::string(look.shape), tip, *strict, ci});
    }
  }
  return plot;
}

DotPlot narrow(DotPlot plot) {
  plot.id += "-narrow";
  plot.width = 360;
  plot.label_width = 0;
  plot.axis = "strict share of answers";
  return plot;
}

const Json* row_of(const Json& task, std::string_view method) {
  for (const Json& row : list(task, "rows")) {
    if (!is_extra(row) && method_key(row) == method) return &row;
  }
  return nullptr;
}

std::optional<double> p_against_saif(const Json& row) {
  const Json* test = row.find("against_saif");
  return test ? number(*test, "mcnemar_p") : std::nullopt;
}

double strict_of(const Json& row) { return number(row, "strict").value_or(-1); }

// Rows of the comparison, best first; equals stay in order.
std::vector<const Json*> by_success(const Json& task) {
  std::vector<const Json*> out;
  for (const Json& row : list(task, "rows")) {
    if (!is_extra(row) && number(row, "strict")) out.push_back(&row);
  }
  std::stable_sort(out.begin(), out.end(), [](const Json* a, const Json* b) { return strict_of(*a) > strict_of(*b); });
  return out;
}

std::string name_and_share(const Json& row) {
  const std::string key = method_key(row);
  return std::string(look_of(key).name) + " (" + fixed(number(row, "strict"), 2) + ")";
}

std::string chance_text(const std::optional<double>& p) {
  if (!p) return "; the two were not compared prompt by prompt.";
  return (*p < kChance ? ", beyond chance (p " : ", but within chance (p ") + p_text(*p) + ").";
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size(); ++i) out += (i == 0 ? "" : i + 1 == names.size() ? " and " : ", ") + names[i];
  return out;
}

}  // namespace

std::string verdict_on(const Json& task) {
  const std::vector<const Json*> rows = by_success(task);
  if (rows.empty()) return "No result.";
  std::vector<std::string> best;
  for (const Json* row : rows) {
    if (strict_of(*row) == strict_of(*rows[0])) best.push_back(name_and_share(*row));
  }
  if (best.size() > 1) return "A tie: " + joined(best) + ".";
  if (rows.size() == 1) return "Only " + best[0] + " was measured.";
  const Json& first = *rows[0];
  const bool saif_wins = method_key(first) == "saif";
  // Paired tests are against saif: the winner's own, or the runner-up's when saif wins.
  const Json* saif = row_of(task, "saif");
  const Json& other = saif_wins || !saif ? *rows[1] : *saif;
  const std::optional<double> p = p_against_saif(saif_wins ? other : first);
  std::string out = saif_wins ? "Steering with " + best[0] : best[0];
  out += p && *p < kChance ? " wins over " : " is ahead of ";
  out += name_and_share(other);
  out += chance_text(p);
  out[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(out[0])));
  return out;
}

namespace {

void tiles(Html& page, const Json& report) {
  const auto& tasks = list(report, "tasks");
  page.open("ul", {{"class", "tiles"}});
  for (const std::string& key : methods_of(report)) {
    double sum = 0;
    int64_t n = 0, wins = 0;
    for (const Json& task : tasks) {
      const Json* row = row_of(task, key);
      const auto strict = row ? number(*row, "strict") : std::nullopt;
      if (!strict) continue;
      sum += *strict;
      ++n;
      wins += *strict == strict_of(*by_success(task)[0]);
    }
    if (n == 0) continue;
    const MethodLook look = look_of(key);
    page.open("li", {{"class", "card " + std::string(look.style)}}).element("span", look.name, {{"class", "method"}});
    page.element("b", fixed(sum / static_cast<double>(n), 2));
    page.element("span", "best in " + std::to_string(wins) + " of " + std::to_string(n), {{"class", "sub"}});
    page.close().line();
  }
  page.close();
  page.element("p", "Mean strict share over the tasks, and in how many no method is better.", {{"class", "note"}});
}

void verdicts(Html& page, const Json& report) {
  page.element("h3", "Who wins");
  page.open("ul", {{"class", "verdicts card"}});
  for (const Json& task : list(report, "tasks")) {
    page.open("li").element("span", title_of(task), {{"class", "task"}}).element("span", verdict_on(task));
    page.close().line();
  }
  page.close();
  page.element(
      "p",
      "Largest strict share. Chance: McNemar's exact test on the same prompts, two-sided, at p < 0.05 for each "
      "comparison, not corrected for the number of tasks.",
      {{"class", "note"}});
}

std::string setting_of(const Json& row) {
  const auto layer = number(row, "layer");
  if (!layer || *layer < 0) return std::string(kAbsent);
  std::string out = "block " + short_number(*layer);
  const std::string method = text(row, "method");
  if (method != "diffmean") {
    if (const auto k = number(row, "k")) out += ", k " + short_number(*k);
    if (const auto beta = number(row, "beta")) out += ", β " + short_number(*beta);
  }
  if (const auto scale = number(row, "scale")) out += ", × " + short_number(*scale);
  return out;
}

void number_row(Html& page, const Json& row, double best) {
  const auto strict = number(row, "strict");
  const std::string key = method_key(row);
  const MethodLook look = look_of(key);
  const auto cell = [&](const std::string& value) { page.element("td", value); };
  page.open("td", {{"class", "l"}}).element("span", look.name, {{"class", std::string(look.style)}});
  if (is_extra(row)) page.element("span", " (another setting)", {{"class", "dim"}});
  page.close();
  page.element("td", setting_of(row), {{"class", "l dim"}});
  cell(short_number(number(row, "n")));
  cell(fixed(number(row, "checker"), 2));
  page.element("td", strict ? share_text(*strict, interval(row, "strict_ci")) : std::string(kAbsent),
               {{"class", strict && *strict == best && !is_extra(row) ? "best" : ""}});
  cell(fixed(number(row, "loose"), 2));
  cell(fixed(number(row, "quality"), 2));
  cell(fixed(number(row, "perplexity"), 1));
  cell(fixed(number(row, "repetition"), 2));
  const auto p = p_against_saif(row);
  cell(p ? p_text(*p) : std::string(kAbsent));
}

void numbers(Html& page, const Json& report) {
  page.element("h3", "The numbers");
  open_table(page, "Success and quality by task and method",
             {{"task", true},
              {"method", true},
              {"setting", true},
              {"n"},
              {"checker"},
              {"strict [95 %]"},
              {"loose"},
              {"quality"},
              {"perplexity"},
              {"repetition"},
              {"p against saif"}});
  for (const Json& task : list(report, "tasks")) {
    const auto& rows = list(task, "rows");
    const auto order = by_success(task);
    const double best = order.empty() ? -1 : strict_of(*order[0]);
    for (size_t r = 0; r < rows.size(); ++r) {
      page.open("tr", {{"class", r == 0 ? "first" : ""}});
      if (r == 0) {
        page.element("th", title_of(task),
                     {{"scope", "rowgroup"}, {"class", "l"}, {"rowspan", std::to_string(rows.size())}});
      }
      number_row(page, rows[r], best);
      page.close().line();
    }
  }
  close_table(page);
  page.element(
      "p",
      "checker: the answer does what was asked. strict: and it is fluent. loose: strict under some relaxation "
      "of the answer. quality: harmonic mean of the checker's and the fluent share. perplexity: median, under the "
      "unsteered model. Intervals are Wilson's.",
      {{"class", "note"}});
}

}  // namespace

void tasks_section(Html& page, const Json& report) {
  if (list(report, "tasks").empty()) return;
  open_section(
      page, "success", "Success by method",
      "How often an answer does what the instruction asks, with no instruction in the prompt unless the method "
      "is prompting. Every method answers the same test prompts.");
  tiles(page, report);
  const DotPlot plot = success_plot(report, "success-plot");
  page.open("figure", {{"class", "card"}});
  draw_dot_plot(page, plot, "wide");
  draw_dot_plot(page, narrow(plot), "narrow");
  page.element("figcaption", "Dots are shares of the test prompts, whiskers 95 % intervals.").close().line();
  verdicts(page, report);
  numbers(page, report);
  page.close().line();
}

}  // namespace report

std::string success_plot_svg(const Json& report) {
  report::DotPlot plot = report::success_plot(report, "success-plot");
  plot.description = "Shares of the test prompts; whiskers are 95 % intervals.";
  plot.width = 960;
  report::Html svg;
  report::draw_dot_plot(svg, plot, "", true);
  return svg.finish() + "\n";
}

}  // namespace saif
