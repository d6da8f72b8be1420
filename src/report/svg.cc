#include "report/svg.h"

#include <algorithm>
#include <cmath>

#include "report/style.h"
#include "report/values.h"

namespace saif::report {
namespace {

constexpr double kShares[] = {0, 0.25, 0.5, 0.75, 1};

void open_svg(Html& out, const std::string& id, const std::string& style, double width, double height) {
  out.open("svg", {{"class", style},
                   {"viewBox", "0 0 " + pixels(width) + " " + pixels(height)},
                   {"width", pixels(width)},
                   {"height", pixels(height)},
                   {"role", "img"},
                   {"aria-labelledby", id}});
}

void polygon(Html& svg, std::initializer_list<std::pair<double, double>> points) {
  std::string text;
  for (const auto& [x, y] : points) {
    text += text.empty() ? "" : " ";
    text += pixels(x);
    text += ',';
    text += pixels(y);
  }
  svg.leaf("polygon", {{"points", text}});
}

// At most so many characters of a UTF-8 text; the whole of it is in the table below.
std::string shortened(const std::string& text, size_t most) {
  size_t count = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool starts = (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80;
    if (starts && ++count > most) return text.substr(0, i) + "…";
  }
  return text;
}

// Where the parts of a dot plot stand.
struct DotLayout {
  double left, right, top, title, gap;
};

double group_height(const DotPlot& plot, const DotLayout& l, const DotGroup& group) {
  return l.title + plot.row * static_cast<double>(std::max<size_t>(group.dots.size(), 1)) + l.gap;
}

// The legend from `y` on, in as many lines as it takes. Returns where it ends.
double draw_legend(Html& svg, const DotPlot& plot, double left, double y) {
  double x = left;
  for (const auto& [text, mark] : plot.legend) {
    const double width = 32 + 7.4 * static_cast<double>(text.size());
    if (x > left && x + width > plot.width - 4) {
      x = left;
      y += 20;
    }
    svg.open("g", {{"class", mark.first}});
    draw_marker(svg, mark.second, x + 6, y, 5);
    svg.close();
    draw_text(svg, {x + 17, y + 4, "start", "legend"}, text);
    x += width;
  }
  return y;
}

void draw_dot(Html& svg, const Dot& dot, const Range& axis, double y) {
  svg.open("g", {{"class", dot.style}}).element("title", dot.tip);
  if (dot.ci) {
    const double low = axis.at(dot.ci->low), high = axis.at(dot.ci->high);
    draw_line(svg, low, y, high, y, "whisker");
    draw_line(svg, low, y - 3, low, y + 3, "whisker");
    draw_line(svg, high, y - 3, high, y + 3, "whisker");
  }
  draw_marker(svg, dot.shape, axis.at(dot.value), y, 4.6);
  svg.close();
}

void draw_share_axis(Html& svg, const Range& axis, double top, double bottom) {
  for (const double share : kShares) {
    const double x = axis.at(share);
    draw_line(svg, x, top, x, bottom, "grid");
    draw_text(svg, {x, bottom + 16, "middle", "tick"}, short_number(share));
  }
}

}  // namespace

double Range::at(double value) const {
  if (high == low) return (from + to) / 2;
  return from + (to - from) * std::clamp((value - low) / (high - low), 0.0, 1.0);
}

std::string pixels(double x) {
  std::string out = fixed(x, 1);
  if (out.ends_with(".0")) out.resize(out.size() - 2);
  return out;
}

void draw_text(Html& svg, const Label& at, std::string_view text) {
  svg.element("text", text,
              {{"x", pixels(at.x)},
               {"y", pixels(at.y)},
               {"text-anchor", std::string(at.anchor)},
               {"class", std::string(at.style)}});
}

void draw_line(Html& svg, double x1, double y1, double x2, double y2, std::string_view style) {
  svg.leaf(
      "line",
      {{"x1", pixels(x1)}, {"y1", pixels(y1)}, {"x2", pixels(x2)}, {"y2", pixels(y2)}, {"class", std::string(style)}});
}

void draw_marker(Html& svg, std::string_view shape, double x, double y, double r) {
  if (shape == "ring") {
    svg.leaf("circle", {{"cx", pixels(x)}, {"cy", pixels(y)}, {"r", pixels(r - 0.6)}, {"class", "hollow"}});
  } else if (shape == "square") {
    svg.leaf("rect", {{"x", pixels(x - r + 0.6)},
                      {"y", pixels(y - r + 0.6)},
                      {"width", pixels(2 * r - 1.2)},
                      {"height", pixels(2 * r - 1.2)}});
  } else if (shape == "diamond") {
    polygon(svg, {{x, y - r - 0.8}, {x + r + 0.8, y}, {x, y + r + 0.8}, {x - r - 0.8, y}});
  } else if (shape == "triangle") {
    polygon(svg, {{x, y - r - 0.4}, {x + r + 0.4, y + r - 0.6}, {x - r - 0.4, y + r - 0.6}});
  } else if (shape == "wedge") {
    polygon(svg, {{x, y + r + 0.4}, {x + r + 0.4, y - r + 0.6}, {x - r - 0.4, y - r + 0.6}});
  } else if (shape == "cross") {
    draw_line(svg, x - r + 1, y - r + 1, x + r - 1, y + r - 1, "stroke");
    draw_line(svg, x - r + 1, y + r - 1, x + r - 1, y - r + 1, "stroke");
  } else {
    svg.leaf("circle", {{"cx", pixels(x)}, {"cy", pixels(y)}, {"r", pixels(r)}});
  }
}

void draw_dot_plot(Html& out, const DotPlot& plot, const std::string& extra_class, bool standalone) {
  const bool wide = plot.label_width > 0;
  const double margin = standalone ? 24 : 12;
  DotLayout l{margin + plot.label_width, plot.width - margin, standalone ? 78.0 : 14.0, wide ? 0.0 : 22.0, 12};
  Html body;  // drawn first: its height follows from the legend and the groups
  const double legend_end = draw_legend(body, plot, wide ? l.left : margin, l.top);
  const double top = legend_end + 22;
  double bottom = top;
  for (const DotGroup& group : plot.groups) bottom += group_height(plot, l, group);
  const Range axis{0, 1, l.left, l.right};
  double y = top;
  for (size_t g = 0; g < plot.groups.size(); ++g) {  // bands below the grid, dots above it
    const double height = group_height(plot, l, plot.groups[g]);
    if (g % 2 == 0) {
      const double x = standalone ? margin / 2 : 0;
      body.leaf("rect", {{"x", pixels(x)},
                         {"y", pixels(y)},
                         {"width", pixels(plot.width - 2 * x)},
                         {"height", pixels(height)},
                         {"class", "band"}});
    }
    y += height;
  }
  draw_share_axis(body, axis, top, bottom);
  draw_text(body, {(l.left + l.right) / 2, bottom + 36, "middle", "axis"}, plot.axis);
  y = top;
  for (const DotGroup& group : plot.groups) {
    const double height = group_height(plot, l, group);
    draw_text(body, {wide ? l.left - 18 : margin, wide ? y + height / 2 + 4.5 : y + 19, wide ? "end" : "start", "task"},
              shortened(group.title, wide ? kWideTitle : 40));
    double row = y + l.title + l.gap / 2 + plot.row / 2;
    for (const Dot& dot : group.dots) {
      draw_dot(body, dot, axis, row);
      row += plot.row;
    }
    y += height;
  }
  const double height = bottom + (standalone ? 56 : 44);
  if (standalone) {
    out.open("svg", {{"xmlns", "http://www.w3.org/2000/svg"},
                     {"viewBox", "0 0 " + pixels(plot.width) + " " + pixels(height)},
                     {"width", pixels(plot.width)},
                     {"height", pixels(height)},
                     {"role", "img"},
                     {"aria-labelledby", plot.id}});
    out.open("style").raw(picture_style()).close();
  } else {
    open_svg(out, plot.id, "plot " + extra_class, plot.width, height);
  }
  out.element("title", plot.title + ". " + plot.description, {{"id", plot.id}});
  if (standalone) {
    out.leaf("rect", {{"width", pixels(plot.width)}, {"height", pixels(height)}, {"rx", "10"}, {"class", "card"}});
    draw_text(out, {margin, 38, "start", "headline"}, plot.title);
  }
  out.raw(body.finish()).close();
}

void draw_heat_map(Html& out, const HeatMap& map) {
  constexpr double kCellWidth = 44, kCellHeight = 28, kLeft = 58, kTop = 24;
  const double width = kLeft + kCellWidth * static_cast<double>(map.columns.size()) + 8;
  const double bottom = kTop + kCellHeight * static_cast<double>(map.rows.size());
  open_svg(out, map.id, "small", width, bottom + 40);
  out.element("title", map.title, {{"id", map.id}});
  draw_text(out, {0, 14, "start", "axis"}, map.y_label);
  for (size_t r = 0; r < map.rows.size(); ++r) {
    const double y = kTop + kCellHeight * static_cast<double>(r);
    draw_text(out, {kLeft - 10, y + kCellHeight / 2 + 4, "end", "tick"}, map.rows[r]);
    for (size_t c = 0; c < map.columns.size(); ++c) {
      const double x = kLeft + kCellWidth * static_cast<double>(c);
      const std::optional<double> value = map.cells[r][c];
      const double shade = value ? std::clamp(*value, 0.0, 1.0) : 0;
      out.leaf("rect", {{"x", pixels(x + 1)},
                        {"y", pixels(y + 1)},
                        {"width", pixels(kCellWidth - 2)},
                        {"height", pixels(kCellHeight - 2)},
                        {"rx", "3"},
                        {"class", value ? "heat" : "hole"},
                        {"fill-opacity", fixed(0.06 + 0.94 * shade, 3)}});
      draw_text(out, {x + kCellWidth / 2, y + kCellHeight / 2 + 4, "middle", shade > 0.65 ? "cell on-heat" : "cell"},
                fixed(value, 2));
    }
  }
  for (size_t c = 0; c < map.columns.size(); ++c) {
    draw_text(out, {kLeft + kCellWidth * (static_cast<double>(c) + 0.5), bottom + 16, "middle", "tick"},
              map.columns[c]);
  }
  draw_text(out, {(kLeft + width - 8) / 2, bottom + 34, "middle", "axis"}, map.x_label);
  out.close();
}

namespace {

std::string path_of(const Line& line, const Range& x, const Range& y) {
  std::string out;
  for (const auto& [a, b] : line.points) {
    out += out.empty() ? 'M' : 'L';
    out += pixels(x.at(a));
    out += ' ';
    out += pixels(y.at(b));
  }
  return out;
}

// Where the names at the right ends of the lines stand: at the ends, moved apart where they would overlap.
std::vector<double> name_places(const LinePlot& plot, const Range& y, double apart) {
  std::vector<size_t> order(plot.lines.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto end = [&](size_t i) { return y.at(plot.lines[i].points.back().second); };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return end(a) < end(b); });
  std::vector<double> out(order.size());
  double last = -1e9;
  for (const size_t i : order) last = out[i] = std::max(end(i), last + apart);
  const double over = order.empty() ? 0 : std::max(0.0, out[order.back()] - y.from);
  for (double& place : out) place -= over;  // the stack moves up rather than below the axis
  return out;
}

void draw_lines(Html& out, const LinePlot& plot, const Range& x, const Range& y) {
  const std::vector<double> names = name_places(plot, y, 13);
  for (size_t i = 0; i < plot.lines.size(); ++i) {
    const Line& line = plot.lines[i];
    out.open("g", {{"class", line.style}}).element("title", line.name);
    out.leaf("path", {{"d", path_of(line, x, y)}, {"class", "line"}});
    for (const auto& [a, b] : line.points) draw_marker(out, line.shape, x.at(a), y.at(b), 3.8);
    draw_text(out, {x.to + 10, names[i] + 4, "start", "name"}, line.name);
    out.close();
  }
}

}  // namespace

void draw_line_plot(Html& out, const LinePlot& plot) {
  constexpr double kWidth = 300, kHeight = 210, kLeft = 34, kRight = 236, kTop = 24, kBottom = 170;
  LinePlot shown = plot;
  std::erase_if(shown.lines, [](const Line& line) { return line.points.empty(); });
  std::vector<double> ticks;
  for (const Line& line : shown.lines) {
    for (const auto& point : line.points) ticks.push_back(point.first);
  }
  std::sort(ticks.begin(), ticks.end());
  ticks.erase(std::unique(ticks.begin(), ticks.end()), ticks.end());
  if (ticks.empty()) return;
  const Range x{ticks.front(), ticks.back(), kLeft + 10, kRight - 10}, y{0, 1, kBottom, kTop};
  open_svg(out, plot.id, "small", kWidth, kHeight);
  out.element("title", plot.title, {{"id", plot.id}});
  draw_text(out, {0, 14, "start", "axis"}, "strict");
  for (const double share : {0.0, 0.5, 1.0}) {
    draw_line(out, kLeft, y.at(share), kRight, y.at(share), "grid");
    draw_text(out, {kLeft - 6, y.at(share) + 4, "end", "tick"}, short_number(share));
  }
  double last = -1e9;
  for (const double tick : ticks) {
    draw_line(out, x.at(tick), kBottom, x.at(tick), kBottom + 4, "grid");
    if (x.at(tick) < last + 30) continue;  // the numbers would run into each other
    last = x.at(tick);
    draw_text(out, {last, kBottom + 17, "middle", "tick"}, short_number(tick));
  }
  draw_text(out, {(kLeft + kRight) / 2, kBottom + 35, "middle", "axis"}, plot.x_label);
  draw_lines(out, shown, x, y);
  out.close();
}

}  // namespace saif::report
