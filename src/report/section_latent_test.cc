#include <gtest/gtest.h>

#include "report/html.h"
#include "report/sections.h"

namespace saif::report {
namespace {

Json explained(const std::string& token) {
  const Json context = Json::object({{"tokens", Json(std::vector<std::string>{"Tell", " me", token, " tea", "\n"})},
                                     {"activations", Json(std::vector<double>{0, 2.5, 10, 4.9, 0})},
                                     {"peak", 2}});
  Json bins = Json::array();
  for (int b = 0; b < 10; ++b) {
    bins.push_back(Json::object({{"low", 1.0 * b}, {"high", b + 1.0}, {"tokens", b == 3 ? 0 : 10 - b}}));
  }
  Json out = Json::object({{"maximum", 10.0}, {"histogram", bins}, {"contexts", Json(Json::Array{context})}});
  out["top"] = Json(Json::Array{Json::object({{"token", token}, {"logit", 1.0}})});
  out["nearest"] = Json(Json::Array{Json::object({{"index", 12345}, {"cosine", 0.413}})});
  out["coactive"] = Json::array();
  out["text_density"] = Json::object({{"share", 0.0123}, {"n", 4321}, {"ci", Json(std::vector<double>{0.01, 0.02})}});
  out["proximity"] = Json::object({{"words", Json(std::vector<std::string>{token})},
                                   {"cosine", 0.2},
                                   {"p_latents", 0.004},
                                   {"p_words", 0.0001},
                                   {"nearest_word", token},
                                   {"nearest_cosine", 0.31}});
  return out;
}

std::string page_of(const Json& latent) {
  Html page;
  latent_page(page, latent);
  return page.finish();
}

Json latent(const Json& explained) { return Json::object({{"index", 4711}, {"explained", explained}}); }

bool has(const std::string& page, const std::string& what) { return page.find(what) != std::string::npos; }

TEST(LatentPage, HighlightsByActivationAndMarksThePeak) {
  const std::string page = page_of(latent(explained(" of")));
  EXPECT_TRUE(page.starts_with("<details class=\"latent card\">"));
  EXPECT_TRUE(has(page, "Latent 4711"));
  EXPECT_TRUE(has(page, "Tell<span class=\"a1\" title=\"activation 2.50\"> me</span>")) << page;
  EXPECT_TRUE(has(page, "<mark class=\"a4\" title=\"activation 10.00\"> of</mark>")) << page;
  EXPECT_TRUE(has(page, "<span class=\"a2\" title=\"activation 4.90\"> tea</span>↵\n</p>")) << page;
  EXPECT_TRUE(has(page, "12345 (0.41)"));
  EXPECT_TRUE(has(page, "0.0123 [0.0100, 0.0200] of 4321 tokens"));
  EXPECT_TRUE(has(page, "p 0.004 against random latents, &lt; 0.001 against random words"));
  EXPECT_TRUE(has(page, "0.0 to") || has(page, "aria-label=\"Tokens by activation, from 0 to 10.0: 10, 9, 8, 0, 6"));
}

TEST(LatentPage, TextOfOthersIsEscaped) {
  const std::string page = page_of(latent(explained("<script>alert(\"x\")</script>")));
  EXPECT_FALSE(has(page, "<script"));
  EXPECT_TRUE(has(page, "&lt;script&gt;"));
}

TEST(LatentPage, NothingWithoutAnExplanation) {
  EXPECT_EQ(page_of(Json::object({{"index", 1}})), "");
  EXPECT_EQ(page_of(latent(Json())), "");
}

TEST(LatentPage, BrokenNumbersDoNotBreakThePage) {
  Json e = explained("x");
  e["contexts"].items()[0]["peak"] = 99;
  e["contexts"].items()[0]["activations"] = Json(Json::Array{Json("no"), Json(-1e300)});
  e["maximum"] = "big";
  const std::string page = page_of(latent(e));
  EXPECT_TRUE(has(page, "Tell me"));
  EXPECT_FALSE(has(page, "<mark"));
  EXPECT_FALSE(has(page, "nan"));
}

}  // namespace
}  // namespace saif::report
