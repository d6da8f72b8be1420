#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "saif/error.h"
#include "saif/verify.h"

namespace saif {
namespace {

using Texts = std::vector<std::string>;

// What no verifier may take, whatever it looks for.
const Texts kRubbish = {"",
                        " \n\t ",
                        "{{{{{{",
                        "}}}}",
                        "\"\"\"",
                        "```",
                        "((((",
                        "1.",
                        "...",
                        "\xFF\xFE\xC3",
                        "L'\u00EE pour l'\u00EE pour l'\u00EE pour l'\u00EE pour l'\u00EE pour l'\u00EE pour"};

const char* const kEnglish =
    "Bees are flying insects that are closely related to wasps and ants, and they are known for their role in "
    "pollination and for producing honey.";

Json none() { return Json::object(); }

void expect_all(const char* name, const Json& args, const Texts& good, const Texts& bad) {
  const auto verifier = make_verifier(name, args);
  for (const std::string& text : good) EXPECT_TRUE(verifier->passes(text)) << name << " must accept:\n" << text;
  for (const std::string& text : bad) EXPECT_FALSE(verifier->passes(text)) << name << " must refuse:\n" << text;
}

TEST(Registry, OffersTheNearestName) {
  try {
    make_verifier("jason", none());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Errc::kInvalidArgument);
    EXPECT_NE(std::string(e.what()).find("json"), std::string::npos);
  }
  EXPECT_THROW(make_verifier("verse", Json::object({{"min_linse", 2}})), Error);
  EXPECT_THROW(make_verifier("verse", Json::object({{"min_lines", "two"}})), Error);
  EXPECT_THROW(make_verifier("verse", Json::object({{"min_words", 9}, {"max_words", 3}})), Error);
  EXPECT_THROW(make_verifier("verse", Json(3)), Error);
  EXPECT_THROW(make_verifier("language", none()), Error);
  EXPECT_THROW(make_verifier("language", Json::object({{"language", "French"}})), Error);
  EXPECT_THROW(make_verifier("language", Json::object({{"language", "xx"}})), Error);
  EXPECT_THROW(make_verifier("prefix", none()), Error);
  EXPECT_THROW(make_verifier("numbered_list", Json::object({{"min_items", 0}})), Error);
  EXPECT_THROW(make_verifier("sentences", Json::object({{"max", 0}})), Error);
  EXPECT_EQ(verifier_names().size(), 7U);
}

TEST(Registry, RubbishIsNeverStrict) {
  for (const std::string& name : verifier_names()) {
    Json args = none();
    if (name == "language") args = Json::object({{"language", "fr"}});
    if (name == "prefix") args = Json::object({{"text", "Once upon a time"}});
    const auto verifier = make_verifier(name, args);
    for (const std::string& text : kRubbish) {
      const Verdict v = judge_answer(*verifier, text);
      EXPECT_FALSE(v.strict || v.loose) << name << ": " << text;
    }
  }
}

TEST(Language, TellsFrenchFromEnglish) {
  const Texts french = {"Les abeilles sont des insectes volants qui produisent du miel et pollinisent les fleurs.",
                        "Le chat dort sur le canap\u00E9 pendant que la pluie tombe."};
  expect_all("language", Json::object({{"language", "fr"}}), french,
             {kEnglish, "Bees make honey. Voil\u00E0! They are insects that live in large colonies and work together.",
              "The word croissant is French, but this sentence is English all the same.", "{{{{{{", "", "12345",
              "Die Bienen sind fliegende Insekten, die Honig herstellen und Blumen best\u00E4uben.",
              "Las abejas son insectos voladores que producen miel y polinizan las flores."});
  expect_all("language", Json::object({{"language", "en"}}), {kEnglish}, french);
  expect_all("language", Json::object({{"language", "pt"}}),
             {"O cora\u00E7\u00E3o bombeia o sangue para todas as partes do corpo.",
              "A economia do pa\u00EDs cresceu mais do que se esperava."},
             {kEnglish, "Las abejas son insectos voladores que producen miel y polinizan las flores del jard\u00EDn."});
}

TEST(JsonAnswer, Objects) {
  expect_all(
      "json", none(),
      {"{\"name\": \"bee\", \"legs\": 6}", "```json\n{\"a\": [1, 2.5e3, true, null]}\n```", "```\n{\"a\": 1}\n```",
       "  {\"a\": {\"b\": {\"c\": \"d\\u00e9\\n\"}}}\n", "{\"a\": \"\"}", "{\"a\": false}", "{\"a\": -0.5}"},
      {"{}", "[1, 2]", "\"a\"", "42", "{'a': 1}", "{a: 1}", "{\"a\" 1}", "{\"a\": 1,}", "{\"a\": 01}",
       "{\"a\": 1} and more", "Here is the JSON:\n{\"a\": 1}", "{\"a\": \"line\nbreak\"}", "{\"a\": \"\\x\"}",
       "{\"a\": 1}}", "{\"a\": bee}", "{\"a\": }", "{\"\": \"\"}", "{\"a\": .5}", kEnglish});
  expect_all("json", none(), {}, kRubbish);
}

TEST(JsonAnswer, CutOffEnds) {
  expect_all("json", none(),
             {"{\"name\": \"Bees are", "{\"a\": 1", "{\"a\": 12.", "{\"a\": tr", "{\"a\": 1, \"b", "{\"a\": 1, \"b\":",
              "{\"a\": 1,", "{\"a\": {\"b\": \"c", "{\"a\": [\"x", "```json\n{\"a\": \"b\"\n``", "{\"a\": \"x\\"},
             {"{", "{\"", "{\"name", "{\"name\"", "{\"name\":", "{\"name\": \"", "{\"a\": {", "{\"a\": [",
              "{\"a\": {\"b", "{\"a\": bee", "{{\"a\": 1", "{\"a\": trap"});
  EXPECT_FALSE(make_verifier("json", none())->passes("{\"a\":" + std::string(100000, '[')));
}

TEST(Python, Programs) {
  expect_all(
      "python", none(),
      {"import math\nprint(math.pi)\n",
       "```python\ndef area(r):\n    \"\"\"The area of a circle.\"\"\"\n    return math.pi * r ** "
       "2\n\nprint(area(2))\n```",
       "Here is an example:\n```python\nx = 1\ny = x + 2\n```\nIt adds numbers.",
       "for i in range(10):\n    if i % 2 == 0 and i > 3:\n        print(i, end=' ')\n    else:\n        continue\n",
       "class Bee(Insect):\n    legs: int = 6\n\n    @property\n    def name(self) -> str:\n        return "
       "f\"{self._name}\"\n",
       "data = {\n    'a': [1, 2, 3],  # numbers\n    'b': (4, 5),\n}\nfor k, v in data.items():\n    print(k, v[1:], "
       "v[::-1])\n",
       "try:\n    x = int(input('n: '))\nexcept (ValueError, KeyError) as e:\n    raise RuntimeError('no') from e\n",
       "with open('a.txt') as f, open('b.txt', 'w') as g:\n    g.write(f.read())\nsquares = [x**2 for x in xs if x not "
       "in ys]\n",
       "from os import (path, sep as s)\nkey = lambda a, b=2: a + b\nvalues.sort(key=lambda v: -v)\n",
       "if (n := len(a)) > 10: print(n)\nwhile True:\n\tbreak\n", "a, *b = c\nd += not a\nprint('x'\n      'y')\n"},
      {kEnglish,
       "Bees",
       "Answer: 42\nQuestion: 43\n",
       "Bees\nWasps\n",
       "print('hello')\n",
       "x = 1\nx = 1\n",
       "Bees (insects)\nWasps (insects)\n",
       "1. Bees fly\n2. Bees buzz\n",
       "import the bees into the garden\nprint\n",
       "if you like bees:\n  plant flowers for them\n",
       "for example: bees and wasps\nwith love and care: the keeper\n",
       "return to the garden\npass the honey\n",
       "def f(x)\n    return x\n",
       "def f(x):\nreturn x\n",
       "x = (1, 2\ny = 3\nz = ]\n",
       "x = 'open\ny = 2\nz = 3\n",
       "{\"a\": 1}",
       "Here is an example:\nx = 1\ny = 2\n",
       "```javascript\nlet x = 1;\nlet y = 2;\n```",
       "```\nBees are insects.\nThey fly.\n```",
       "x = 3rd of May\ny = 2\n",
       "- bees\n- wasps\n",
       "print \"x\"\nprint \"y\"\n",
       "# only\n# comments\n",
       "The bee, the wasp, the ant\nThe end\n",
       "x = 1\n    y = 2\nz = 3\n"});
  expect_all("python", none(), {}, kRubbish);
}

TEST(Python, CutOffEnds) {
  expect_all(
      "python", none(),
      {"```python\nimport math\n\ndef area(r):\n    return math.pi * r **", "def bees():\n    \"\"\"Explains what bees",
       "x = 1\nprint(\"Bees are", "x = 1\ny = 2\nfor i in", "x = 1\ny = 2\ndef na", "import os\nx = 1\nfrom sys imp"},
      {"def bees(", "print(\"Bees are", "```python\n", "```python", "x = 1\nThe bees are", "(((((("});
}

TEST(NumberedList, CountsUp) {
  expect_all(
      "numbered_list", Json::object({{"min_items", 2}}),
      {"1. Bees fly.\n2. Bees buzz.\n3. Bees sting.", "Here are some:\n\n1) one thing\n2) another thing",
       "1. **Honey**: sweet\n   more of it\n\n2. **Wax**: soft", "**1.** a bee\n**2.** a wasp", "1. a\n2. b\n3."},
      {"1. Bees fly.", "1. a\n1. b", "2. a\n3. b", "1. a\n3. b", "1.\n2.\n", "- a\n- b", "1. same\n2. same",
       "1. Bees fly. 2. Bees buzz.", "1.5 litres\n2.5 litres", "1. a\n2.\n3. c", kEnglish, "1. ...\n2. ***"});
  expect_all("numbered_list", Json::object({{"min_items", 3}}), {}, {"1. a\n2. b"});
  expect_all("numbered_list", none(), {}, kRubbish);
}

TEST(Verse, ShortDifferentLines) {
  expect_all(
      "verse", none(),
      {"In gardens bright the bees do hum,\nAnd from the hive their golden sum.\nThey dance",
       "The Bee\n\nA little bee flew by my door\nAnd asked if I had any more", "**Honey**\nSweet gold of day,\nwe sing",
       "Here is a poem about bees:\nThe bee is small\nThe bee is bright",
       "# Bees\nOh bee of gold\nso brave, so bold\nso"},
      {kEnglish, "Bees are insects that fly.", "1. Bees fly high\n2. Bees hum low", "- Bees fly high\n- Bees hum low",
       "The bee flies\nThe bee flies\nthe bee flies!", "def f(x):\n  return x + 1\n  y = 2",
       "{\n\"a\": 1,\n\"b\": 2\n}", "Roses are red\n" + std::string(kEnglish), "Sure!\n\nBees are flying insects",
       "a b\n\nword\n\nc d e", "* * *\n? ? ?\n! ! !", "| a | b |\n| c | d |"});
  expect_all("verse", Json::object({{"min_lines", 4}}), {}, {"one two\nthree four\nfive six"});
  expect_all("verse", none(), {}, kRubbish);
}

TEST(Prefix, IgnoresCaseQuotesAndAsterisks) {
  const Json args = Json::object({{"text", "Once upon a time"}});
  expect_all("prefix", args,
             {"Once upon a time, there was a bee.", "  \"Once upon a time there was", "**ONCE  upon\na time**, bees",
              "\u201COnce upon a time\u201D", "Once upon a time"},
             {"Once upon a timer", "Once upon a", "A bee, once upon a time", "Sure! Once upon a time",
              "There was once a bee"});
  expect_all("prefix", args, {}, kRubbish);
}

TEST(Sentences, OneCompleteSentence) {
  expect_all("sentences", none(),
             {"Bees are flying insects.", "Do bees sleep at night?", "\"Bees make honey!\"", "**Bees make honey.**",
              "Dr. J. Smith keeps 3.5 million bees, e.g. in St. Paul.", "Bees, wasps, etc. are insects.",
              "\u201CBuzz!\u201D said the bee.", "Bees make honey...", kEnglish,
              "A bee has no. 1 rank in my garden (really)."},
             {"Bees are insects. They fly.", "Bees are insects that", "Bees fly.", "Bees are insects.\nThey also fly",
              "1. Bees are insects.", "- Bees are insects.", "Bees are insects! And they fly?", "bees bees bees bees",
              "Honey is sweet. It", "In 1999. They came.", "... ... ...", "Title Here Now\n\nBees make honey."});
  expect_all("sentences", Json::object({{"max", 2}}), {"Bees are insects. They fly."}, {"One is. Two is. Three is."});
  expect_all("sentences", Json::object({{"max_words", 5}}), {"Bees are insects that fly."}, {kEnglish});
  expect_all("sentences", none(), {}, kRubbish);
}

}  // namespace
}  // namespace saif
