#include "saif/vector.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <functional>

#include "base/file.h"
#include "formats/safetensors.h"

namespace saif {
namespace {

Architecture tiny() {
  Architecture a;
  a.d_model = 4;
  a.n_layers = 3;
  a.layers.resize(3);
  return a;
}

std::string temporary(const std::string& name) {
  return testing::TempDir() + "saif_vector_" + std::to_string(::getpid()) + "_" + name;
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

SteeringVector example() {
  SteeringVector v;
  v.site = "blocks.1.hook_resid_post";
  v.vector = {1, -2, 0.5f, 3};
  return v;
}

std::vector<float> edited(const SteeringVector& v, double scale, std::vector<float> h, int64_t step) {
  const AppliedEdit edit = make_edit(v, scale, tiny());
  edit.edit->apply(Mat<float>(h.data(), 1, 4), std::span<const int64_t>(&step, 1));
  return h;
}

TEST(SteeringVector, SurvivesAFile) {
  SteeringVector v = example();
  v.op = EditOp::kProject;
  v.positions = EditPositions::kAll;
  v.norm_preserving = true;
  v.decay = 0.125;
  v.scale = 1.5;
  v.origin = Json::object({{"task", "french"}, {"k", 15}});
  const std::string path = temporary("round.safetensors");
  v.save(path);
  const SteeringVector w = SteeringVector::load(path);
  EXPECT_EQ(w.vector, v.vector);
  EXPECT_EQ(w.site, v.site);
  EXPECT_EQ(w.op, v.op);
  EXPECT_EQ(w.positions, v.positions);
  EXPECT_EQ(w.norm_preserving, true);
  EXPECT_EQ(w.decay, 0.125);
  EXPECT_EQ(w.scale, 1.5);
  EXPECT_EQ(w.origin.dump(), v.origin.dump());
  std::filesystem::remove(path);
}

TEST(SteeringVector, AddsItsScaleTimesItself) {
  EXPECT_EQ(edited(example(), 2.0, {1, 1, 1, 1}, 0), (std::vector<float>{3, -3, 2, 7}));
}

TEST(SteeringVector, DecaysOverGeneratedTokensOnly) {
  SteeringVector v = example();
  v.decay = 1.0;
  EXPECT_EQ(edited(v, 1.0, {0, 0, 0, 0}, 0), v.vector);
  EXPECT_EQ(edited(v, 1.0, {0, 0, 0, 0}, -5), v.vector);
  EXPECT_EQ(edited(v, 1.0, {0, 0, 0, 0}, 1), (std::vector<float>{0.5f, -1, 0.25f, 1.5f}));
}

TEST(SteeringVector, KeepsTheNormWhenAsked) {
  SteeringVector v = example();
  v.norm_preserving = true;
  const std::vector<float> h = edited(v, 3.0, {3, 0, 0, 4}, 0);
  double norm = 0;
  for (const float x : h) norm += static_cast<double>(x) * x;
  EXPECT_NEAR(std::sqrt(norm), 5.0, 1e-5);
}

TEST(SteeringVector, ProjectSetsTheComponent) {
  SteeringVector v = example();
  v.op = EditOp::kProject;
  const std::vector<float> h = edited(v, 2.0, {5, 6, 7, 8}, 0);
  double along = 0;
  for (size_t i = 0; i < 4; ++i) along += static_cast<double>(h[i]) * v.vector[i] / v.norm();
  EXPECT_NEAR(along, 2.0 * v.norm(), 1e-5);
}

TEST(SteeringVector, RefusesWhatDoesNotFit) {
  SteeringVector v = example();
  v.vector.push_back(1);
  EXPECT_NE(message_of([&] { make_edit(v, 1, tiny()); }).find("5 wide"), std::string::npos);
  v = example();
  v.site = "blocks.7.hook_resid_post";
  EXPECT_NE(message_of([&] { make_edit(v, 1, tiny()); }).find("7"), std::string::npos);
}

TEST(SteeringVector, FilesThatAreNoVectorsAreNamed) {
  const std::string path = temporary("bad.safetensors");
  const float x[4] = {1, 2, 3, 4};
  const NamedTensor other{"direction", {DType::kF32, {4}, x}};
  write_safetensors(path, {&other, 1}, {});
  EXPECT_NE(message_of([&] { SteeringVector::load(path); }).find("no tensor \"vector\""), std::string::npos);
  const NamedTensor unplaced{"vector", {DType::kF32, {4}, x}};
  write_safetensors(path, {&unplaced, 1}, {});
  EXPECT_NE(message_of([&] { SteeringVector::load(path); }).find("saif.site"), std::string::npos);
  write_safetensors(path, {&unplaced, 1}, {{"saif.site", "blocks.1.hook_resid_post"}, {"saif.op", "multiply"}});
  EXPECT_NE(message_of([&] { SteeringVector::load(path); }).find("multiply"), std::string::npos);
  std::filesystem::remove(path);
  EXPECT_NE(message_of([&] { SteeringVector::load(path); }).find(path), std::string::npos);
}

TEST(SteerArgument, SplitsTheScaleOff) {
  EXPECT_EQ(parse_steer("a.safetensors").path, "a.safetensors");
  EXPECT_EQ(parse_steer("a.safetensors:1.5").scale, 1.5);
  EXPECT_EQ(parse_steer("a.safetensors:-2").path, "a.safetensors");
  EXPECT_NE(message_of([] { parse_steer("a.safetensors:big"); }).find("not a number"), std::string::npos);
}

}  // namespace
}  // namespace saif
