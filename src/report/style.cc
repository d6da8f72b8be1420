#include "report/style.h"

#include "report/values.h"

namespace saif::report {
namespace {

constexpr MethodLook kMethods[] = {
    {"none", "no instruction", "m-none", "ring"},
    {"prompt", "prompted", "m-prompt", "square"},
    {"prompt_pre", "prompted, instruction first", "m-pre", "wedge"},
    {"saif", "saif", "m-saif", "circle"},
    {"diffmean", "difference of means", "m-diffmean", "diamond"},
    {"random", "random direction", "m-random", "triangle"},
    {"random_latents", "random latents", "m-latents", "cross"},
};
constexpr MethodLook kLines[] = {
    {"", "", "m-prompt", "square"},   {"", "", "m-saif", "circle"},   {"", "", "m-diffmean", "diamond"},
    {"", "", "m-random", "triangle"}, {"", "", "m-latents", "wedge"}, {"", "", "m-pre", "cross"},
    {"", "", "m-none", "ring"},
};

constexpr std::string_view kLight =
    "--paper:#fbfbf9;--card:#ffffff;--ink:#1f2328;--soft:#5b636d;--rule:#e3e4e0;--band:#f3f4f1;--accent:#0b5c8e;"
    "--heat:#0b5c8e;--on-heat:#ffffff;--good:#00714f;--bad:#a8450a;--fine:#6b5a00;"
    "--none:#6f7680;--prompt:#0072b2;--pre:#4aa3dc;--saif:#d55e00;--diffmean:#009e73;--random:#b8578f;"
    "--latents:#b98500;";
constexpr std::string_view kDark =
    "--paper:#15181c;--card:#1c2025;--ink:#e4e7ea;--soft:#a0a8b1;--rule:#31373e;--band:#21262c;--accent:#7cbcec;"
    "--heat:#5aa9e0;--on-heat:#0d1115;--good:#4fd0a4;--bad:#f3a06a;--fine:#e0c95a;"
    "--none:#a3abb5;--prompt:#55ace6;--pre:#a5d6f6;--saif:#f48b4a;--diffmean:#3ecb9d;--random:#df98c0;"
    "--latents:#edb84b;";

constexpr std::string_view kPicture = R"(
svg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;font-size:12px;fill:var(--soft)}
svg text.task{font-size:13.5px;fill:var(--ink);font-weight:600}
svg text.legend{font-size:12.5px;fill:var(--ink)}
svg text.headline{font-size:19px;fill:var(--ink);font-weight:650}
svg text.cell{fill:var(--ink);font-variant-numeric:tabular-nums}
svg text.on-heat{fill:var(--on-heat)}
svg text.name{fill:currentColor}
.band{fill:var(--band)}
.grid{stroke:var(--rule);stroke-width:1}
.heat{fill:var(--heat)}
.hole{fill:none;stroke:var(--rule)}
.m-none{color:var(--none)}.m-prompt{color:var(--prompt)}.m-pre{color:var(--pre)}.m-saif{color:var(--saif)}
.m-diffmean{color:var(--diffmean)}.m-random{color:var(--random)}.m-latents{color:var(--latents)}
svg g circle,svg g rect,svg g polygon{fill:currentColor}
svg g circle.hollow{fill:var(--card);stroke:currentColor;stroke-width:2}
svg g .stroke{stroke:currentColor;stroke-width:2.4}
svg g .whisker{stroke:currentColor;stroke-width:1.6;opacity:.75}
svg g .line{fill:none;stroke:currentColor;stroke-width:1.8}
)";

constexpr std::string_view kPage = R"(
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,
Arial,sans-serif;overflow-wrap:break-word}
main,header,footer{max-width:62rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:3rem}
h1{font-size:clamp(1.6rem,1.2rem + 2vw,2.3rem);line-height:1.2;margin:0 0 .5rem;letter-spacing:-.015em;text-wrap:balance}
h2{font-size:1.35rem;line-height:1.3;margin:3.2rem 0 .4rem;padding-top:1.1rem;border-top:1px solid var(--rule)}
h3{font-size:1.02rem;margin:1.6rem 0 .4rem}
p{margin:.4rem 0 .8rem;max-width:46rem}
.subtitle{font-size:1.08rem;color:var(--soft);margin:0}
.note,.lead{color:var(--soft)}
.note{font-size:.9rem}
a{color:var(--accent)}
nav{margin:1.3rem 0 0;font-size:.93rem;display:flex;flex-wrap:wrap;gap:.3rem 1.1rem}
nav a{text-decoration:none}
nav a:hover{text-decoration:underline}
figure{margin:1rem 0;padding:0}
figcaption{font-size:.9rem;color:var(--soft);margin-top:.3rem;max-width:46rem}
.card{background:var(--card);border:1px solid var(--rule);border-radius:10px}
figure.card{padding:1rem}
.plot{display:block;width:100%;height:auto}
.plot.narrow{display:none}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.7rem;margin:1.1rem 0;padding:0;
list-style:none}
.tiles li{padding:.7rem .9rem}
.tiles b{display:block;font-size:1.5rem;line-height:1.25;font-variant-numeric:tabular-nums;color:var(--ink)}
.tiles .method{font-size:.87rem;font-weight:600}
.tiles .sub{font-size:.82rem;color:var(--soft)}
.table{overflow-x:auto;margin:.8rem 0;border:1px solid var(--rule);border-radius:10px;background:var(--card)}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.6rem .8rem 0;font-weight:600}
th,td{padding:.34rem .8rem;text-align:right;white-space:nowrap;border-top:1px solid var(--rule);vertical-align:top}
thead th{border-top:0;color:var(--soft);font-weight:600;padding-top:.55rem;padding-bottom:.5rem}
th.l,td.l{text-align:left}
td.wrap{white-space:normal;min-width:15rem}
tr.first>*{border-top:1px solid var(--soft)}
tbody:first-of-type tr.first:first-child>*{border-top:1px solid var(--rule)}
tbody th{font-weight:600;text-align:left}
tr.best td,td.best{font-weight:650}
.dim{color:var(--soft)}
ul.verdicts{list-style:none;margin:1rem 0;padding:.35rem 0}
ul.verdicts li{padding:.4rem 1rem;display:grid;grid-template-columns:11rem 1fr;gap:.2rem 1rem}
ul.verdicts li+li{border-top:1px solid var(--rule)}
ul.verdicts .task{font-weight:600}
.badge{display:inline-block;font-size:.78rem;font-weight:650;line-height:1.4;padding:0 .5rem;border:1px solid;
border-radius:99px;white-space:nowrap}
.good{color:var(--good)}.bad{color:var(--bad)}.fine{color:var(--fine)}
.prompt{margin:.2rem 0 .5rem}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(17rem,100%),1fr));gap:.8rem;margin:.4rem 0 1.2rem}
.answer{padding:.75rem 1rem;min-width:0}
.answer h4{margin:0 0 .35rem;font-size:.84rem;display:flex;justify-content:space-between;gap:.6rem;color:var(--soft)}
.said{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;font-size:.93rem;line-height:1.5;margin:0}
.panels{display:flex;flex-wrap:wrap;gap:1.1rem 1.3rem;padding:1rem;overflow-x:auto}
.panels figure{margin:0}
.small{display:block;max-width:none}
code,.token{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.86em}
.token{display:inline-block;background:var(--band);border-radius:4px;padding:0 .3em;margin:.08rem .25rem .08rem 0;
white-space:pre;unicode-bidi:isolate}
.flag{color:var(--bad);font-size:.86em}
details.latent{margin:.4rem 0;padding:0 1rem}
details.latent>summary{margin:.5rem 0;font-weight:400;font-size:.92rem;line-height:1.6}
details.latent>summary b{margin-right:.5rem}
details.latent h4{margin:.9rem 0 .3rem;font-size:.84rem;color:var(--soft)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(24rem,100%),1fr));gap:0 1.6rem}
.charts svg{max-width:100%;height:auto}
.columns{display:grid;grid-template-columns:minmax(0,3fr) minmax(0,2fr);gap:0 1.6rem;padding-bottom:.9rem}
.contexts{list-style:none;margin:0;padding:0}
.contexts li{display:grid;grid-template-columns:3.2rem minmax(0,1fr);gap:.6rem;padding:.35rem 0;font-size:.9rem;
border-top:1px solid var(--rule)}
.contexts li:first-child{border-top:0}
.contexts .value{color:var(--soft);text-align:right;font-variant-numeric:tabular-nums}
.contexts p{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate}
.contexts span,.contexts mark{border-radius:3px;color:inherit;background:none}
.contexts .a1{background:color-mix(in srgb,var(--saif) 14%,transparent)}
.contexts .a2{background:color-mix(in srgb,var(--saif) 24%,transparent)}
.contexts .a3{background:color-mix(in srgb,var(--saif) 34%,transparent)}
.contexts .a4{background:color-mix(in srgb,var(--saif) 44%,transparent)}
.contexts mark{font-weight:700;box-shadow:inset 0 -2px 0 var(--saif)}
dl.facts{display:grid;grid-template-columns:auto minmax(0,1fr);gap:.2rem .9rem;margin:.3rem 0;font-size:.86rem;
font-variant-numeric:tabular-nums}
dl.facts dt{color:var(--soft)}
dl.facts dd{margin:0}
.bar{fill:var(--prompt)}
.claim{display:grid;grid-template-columns:8rem 1fr;gap:.2rem 1rem;padding:.8rem 1rem}
.claims{margin:1rem 0;padding:0}
.claim+.claim{border-top:1px solid var(--rule)}
.claim p{margin:.1rem 0}
summary{cursor:pointer;font-weight:600;margin:1rem 0 .2rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
padding:1rem;margin:.8rem 0}
footer{padding-top:1rem;padding-bottom:3rem;color:var(--soft);font-size:.85rem}
@media (max-width:46rem){
header{padding-top:1.8rem}
main,header,footer{padding-left:.9rem;padding-right:.9rem}
.plot.wide{display:none}.plot.narrow{display:block}
figure.card{padding:.6rem .3rem}
.tiles{grid-template-columns:1fr 1fr}
ul.verdicts li,.claim,.columns{grid-template-columns:minmax(0,1fr)}
th,td{padding-left:.55rem;padding-right:.55rem}
}
@media print{
:root{--paper:#fff}
body{font-size:10.5pt}
main,header,footer{max-width:none;padding:0}
nav{display:none}
.table,.panels{overflow:visible}
table{font-size:8.5pt}
th,td{padding:.2rem .4rem}
figure,.answer,.panels,tr,.claim{break-inside:avoid}
h2,h3,summary{break-after:avoid}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
)";

}  // namespace

std::string method_key(const Json& row) {
  const std::string method = text(row, "method", "?");
  return method == "prompt" && text(row, "placement") == "pre" ? "prompt_pre" : method;
}

MethodLook look_of(std::string_view method_key) {
  for (const MethodLook& look : kMethods) {
    if (look.key == method_key) return look;
  }
  return {method_key, method_key, "m-none", "square"};
}

MethodLook look_of_line(size_t number) { return kLines[number % std::size(kLines)]; }

std::string page_style() {
  std::string out = ":root{color-scheme:light dark;";
  out += kLight;
  out += "}\n@media screen and (prefers-color-scheme:dark){:root{";
  out += kDark;
  out += "}}";
  out += kPage;
  out += kPicture;
  return out;
}

std::string picture_style() {
  std::string out = "svg{";
  out += kLight;
  out += "}";
  out += kPicture;
  out += "rect.card{fill:var(--card)}";
  return out;
}

}  // namespace saif::report
