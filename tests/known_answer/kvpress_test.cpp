// SPDX-License-Identifier: Apache-2.0
// Scores and kept sets against NVIDIA kvpress, on rows of a real model. make_kvpress_answers.py wrote the answers; each
// test says where this library means something else than kvpress does, and tests that relation.
#include <kvcrush/allocation/ada_kv.hpp>
#include <kvcrush/allocation/allocator.hpp>
#include <kvcrush/allocation/pyramid_kv.hpp>
#include <kvcrush/cache/compact.hpp>
#include <kvcrush/cache/rerotate.hpp>
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/math/value_norms.hpp>
#include <kvcrush/retention/expected_attention.hpp>
#include <kvcrush/retention/h2o.hpp>
#include <kvcrush/retention/key_diff.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/retention/kvzip.hpp>
#include <kvcrush/retention/lag_kv.hpp>
#include <kvcrush/retention/q_filter_calibration.hpp>
#include <kvcrush/retention/q_filters.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/retention/streaming_llm.hpp>
#include <kvcrush/retention/tova.hpp>
#include <kvcrush/select/chunk_kv.hpp>
#include <kvcrush/select/critical_kv.hpp>
#include <kvcrush/select/kvzip_selector.hpp>
#include <kvcrush/select/top_k.hpp>

#include "known_answer/safetensors.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

using test::tensor_file;

const tensor_file& answers() {
    static const tensor_file file(std::string(KVCRUSH_TEST_DATA) + "/kvpress_answers.safetensors");
    return file;
}

/// What one layer of the model holds: keys and values as f16, queries widened to f32.
class layer {
public:
    explicit layer(const tensor_file& file, const std::string& name)
        : keys_(file.get<f16>(name + ".keys")), values_(file.get<f16>(name + ".values")) {
        const std::vector<std::size_t> rows = file.shape(name + ".keys");
        shape_ = {rows[0], rows[1], rows[2], rows[2]};
        num_q_heads_ = file.shape(name + ".queries")[0];
        for (const f16 value : file.get<f16>(name + ".queries")) {
            queries_.push_back(to_float(value));
        }
    }

    [[nodiscard]] kv_view<const f16> kv() const { return {keys_, values_, shape_}; }
    [[nodiscard]] query_view queries() const {
        return {queries_, num_q_heads_, shape_.seq_len, shape_.key_dim};
    }
    [[nodiscard]] problem_size size() const { return {shape_, num_q_heads_}; }

private:
    std::vector<f16> keys_;
    std::vector<f16> values_;
    std::vector<float> queries_;
    kv_shape shape_;
    std::size_t num_q_heads_ = 0;
};

const tensor_file& inputs() {
    static const tensor_file file(std::string(KVCRUSH_TEST_DATA) + "/smollm2_layers.safetensors");
    return file;
}

const std::vector<layer>& layers() {
    static const std::vector<layer> all{layer(inputs(), "layer4"), layer(inputs(), "layer20")};
    return all;
}

/// Keep ratios that were recorded, in percent.
constexpr std::array recorded_ratios{40, 70};

/// Recorded scores or sets of one layer, [num_kv_heads, seq_len].
template <typename T>
class recorded {
public:
    recorded(const std::string& name, std::size_t place) {
        const std::vector<std::size_t> shape = answers().shape(name);
        num_heads_ = shape.at(1);
        seq_len_ = shape.at(2);
        const std::vector<T> all = answers().get<T>(name);
        const auto first = static_cast<std::ptrdiff_t>(place * num_heads_ * seq_len_);
        const auto count = static_cast<std::ptrdiff_t>(num_heads_ * seq_len_);
        values_.assign(all.begin() + first, all.begin() + first + count);
    }
    [[nodiscard]] std::size_t num_heads() const { return num_heads_; }
    [[nodiscard]] std::size_t seq_len() const { return seq_len_; }
    [[nodiscard]] std::span<const T> row(std::size_t head) const {
        return std::span(values_).subspan(head * seq_len_, seq_len_);
    }
    [[nodiscard]] std::span<const T> values() const { return values_; }

private:
    std::vector<T> values_;
    std::size_t num_heads_ = 0;
    std::size_t seq_len_ = 0;
};

[[nodiscard]] recorded<float> scores_of(const std::string& press, std::size_t place) {
    return {press + ".scores", place};
}
[[nodiscard]] recorded<std::uint8_t>
kept_by(const std::string& press, std::size_t place, int percent) {
    return {press + ".kept" + std::to_string(percent), place};
}

/// Both steps of any scorer, [num_kv_heads, seq_len].
template <Scorer ScorerT>
[[nodiscard]] std::vector<float> scores_with(const ScorerT& scorer, const layer& of) {
    scorer.validate();
    const problem_size size = of.size();
    const std::size_t heads = num_observed_heads(scorer, size);
    std::vector<float> observed(heads * size.kv.seq_len);
    std::vector<float> scores(size.kv.num_kv_heads * size.kv.seq_len);
    test::owned_scratch memory(scorer_scratch_bytes(scorer, size));
    const head_scores seen(observed, heads, size.kv.seq_len);
    if constexpr (ScorerT::needs_attention) {
        observe(scorer, seen, memory.get(), of.kv(), of.queries());
    } else {
        observe(scorer, seen, memory.get(), of.kv());
    }
    const const_head_scores result =
        reduce(scorer, seen, {scores, size.kv.num_kv_heads, size.kv.seq_len}, memory.get());
    return {result.values().begin(), result.values().end()};
}

/// A part of every row: [begin, end).
struct token_range {
    std::size_t begin = 0;
    std::size_t end = std::numeric_limits<std::size_t>::max();
};

/// Compares ours with scale * theirs, within 1e-4 of each score.
void expect_scores(std::span<const float> ours,
                   const recorded<float>& theirs,
                   double scale = 1.0,
                   const token_range& range = {}) {
    ASSERT_EQ(ours.size(), theirs.values().size());
    for (std::size_t head = 0; head < theirs.num_heads(); ++head) {
        const std::size_t end = (std::min)(range.end, theirs.seq_len());
        for (std::size_t token = range.begin; token < end; ++token) {
            const double expected = scale * static_cast<double>(theirs.row(head)[token]);
            ASSERT_NEAR(ours[head * theirs.seq_len() + token], expected, 1e-4 * std::abs(expected))
                << "head " << head << ", token " << token;
        }
    }
}

[[nodiscard]] std::vector<token_index> tokens_of(std::span<const std::uint8_t> set) {
    std::vector<token_index> tokens;
    for (std::size_t token = 0; token < set.size(); ++token) {
        if (set[token] != 0) {
            tokens.push_back(static_cast<token_index>(token));
        }
    }
    return tokens;
}

/// The sets are equal, but for tokens whose recorded scores tie at the cut: within 1e-5 of the lowest that stays.
void expect_sets(const selection& ours,
                 const recorded<std::uint8_t>& theirs,
                 const recorded<float>& scores) {
    ASSERT_EQ(ours.num_kv_heads(), theirs.num_heads());
    for (std::size_t head = 0; head < theirs.num_heads(); ++head) {
        const std::vector<token_index> expected = tokens_of(theirs.row(head));
        const std::vector<token_index> kept = test::list(ours.kept(head));
        ASSERT_EQ(kept.size(), expected.size()) << "head " << head;
        float cut = std::numeric_limits<float>::infinity();
        for (const token_index token : expected) {
            cut = (std::min)(cut, scores.row(head)[token]);
        }
        std::vector<token_index> differing;
        std::ranges::set_symmetric_difference(kept, expected, std::back_inserter(differing));
        for (const token_index token : differing) {
            EXPECT_NEAR(scores.row(head)[token], cut, 1e-5F * std::abs(cut))
                << "head " << head << ", token " << token;
        }
    }
}

/// Selects with as many tokens as kvpress keeps; `protect` are the tokens that kvpress scores above all others.
template <Scorer ScorerT>
[[nodiscard]] selection
select_with(const ScorerT& scorer, const layer& of, std::size_t tokens, const area_sizes& protect) {
    compressor<ScorerT, top_k_selector> crush(scorer);
    crush.plan(of.size(), budget::tokens(tokens, protect));
    return crush.select(of.kv(), of.queries());
}

/// The sets of a press, selected by this library's scorer.
template <Scorer ScorerT>
void expect_kept(const ScorerT& scorer, const std::string& press, const area_sizes& protect) {
    for (std::size_t place = 0; place < layers().size(); ++place) {
        for (const int percent : recorded_ratios) {
            SCOPED_TRACE(press + ", layer " + std::to_string(place) + ", " +
                         std::to_string(percent) + " %");
            const auto theirs = kept_by(press, place, percent);
            const selection ours =
                select_with(scorer, layers()[place], tokens_of(theirs.row(0)).size(), protect);
            expect_sets(ours, theirs, scores_of(press, place));
        }
    }
}

/// Scores of both layers.
template <Scorer ScorerT>
void expect_all_scores(const ScorerT& scorer,
                       const std::string& press,
                       double scale = 1.0,
                       const token_range& range = {}) {
    for (std::size_t place = 0; place < layers().size(); ++place) {
        SCOPED_TRACE(press + ", layer " + std::to_string(place));
        expect_scores(scores_with(scorer, layers()[place]), scores_of(press, place), scale, range);
    }
}

constexpr area_sizes nothing{0, 0};

/// How many tokens each kv head keeps.
[[nodiscard]] std::vector<std::size_t> counts_of(const recorded<std::uint8_t>& sets) {
    std::vector<std::size_t> counts;
    for (std::size_t head = 0; head < sets.num_heads(); ++head) {
        counts.push_back(tokens_of(sets.row(head)).size());
    }
    return counts;
}

/// Runs a selector on scores that kvpress recorded, nothing being protected but by them.
template <typename SelectorT, typename... Inputs>
[[nodiscard]] selection select_from(const SelectorT& selector,
                                    const_head_scores scores,
                                    std::span<const std::size_t> counts,
                                    const Inputs&... inputs) {
    selector.validate();
    const problem_size size = layers()[0].size();
    test::owned_scratch memory(selector.scratch_bytes(size));
    selection out;
    out.reserve(scores.num_heads(), scores.values().size());
    selector.select(
        {scores, scores, areas(nothing, scores.seq_len()), counts, memory.get()}, out, inputs...);
    return out;
}

template <typename SelectorT, typename... Inputs>
[[nodiscard]] selection select_from(const SelectorT& selector,
                                    const recorded<float>& scores,
                                    std::span<const std::size_t> counts,
                                    const Inputs&... inputs) {
    return select_from(selector,
                       const_head_scores(scores.values(), scores.num_heads(), scores.seq_len()),
                       counts,
                       inputs...);
}

/// The layers, keep ratios and sets that a selecting press recorded.
template <typename Check>
void for_each_set(const std::string& press, const Check& check) {
    const std::size_t num_layers = answers().shape(press + ".kept40").at(0);
    for (std::size_t place = 0; place < num_layers; ++place) {
        for (const int percent : recorded_ratios) {
            SCOPED_TRACE(press + ", layer " + std::to_string(place) + ", " +
                         std::to_string(percent) + " %");
            check(place, percent, kept_by(press, place, percent));
        }
    }
}

TEST(Kvpress, DataIsOfTheRealModel) {
    for (const layer& of : layers()) {
        EXPECT_EQ(of.size().kv, (kv_shape{3, 233, 64, 64}));
        EXPECT_EQ(of.size().num_q_heads, 9U);
    }
}

TEST(Kvpress, BudgetsOfKeepRatiosAreTheSame) {
    for (const int percent : recorded_ratios) {
        EXPECT_EQ(budget::keep_ratio(percent / 100.0).tokens_for(233),
                  tokens_of(kept_by("knorm", 0, percent).row(0)).size());
    }
}

TEST(Kvpress, Knorm) {
    expect_all_scores(knorm_scorer{}, "knorm");
    expect_kept(knorm_scorer{}, "knorm", nothing);
}

TEST(Kvpress, KeyDiff) {
    expect_all_scores(key_diff_scorer{}, "key_diff");
    expect_kept(key_diff_scorer{}, "key_diff", nothing);
}

// Sinks score above all others in kvpress and as high as the best here; they stay in both, protected or not.
TEST(Kvpress, ExpectedAttention) {
    const double theta = std::stod(inputs().metadata("rope_theta"));
    const auto check = [](const expected_attention_scorer& scorer, const std::string& press) {
        expect_all_scores(scorer, press, 1.0, {4, 233});
        expect_kept(scorer, press, {4, 0});
        expect_kept(scorer, press, nothing);
    };
    check({.rope = {.theta = theta}}, "expected_attention");
    check({.covariance = query_covariance::none, .epsilon = 0.02, .rope = {.theta = theta}},
          "expected_attention_mean");
    check({.num_future = 37, .value_norms = false, .rope = {.theta = theta}},
          "expected_attention_plain");
}

// Every partition has the same ranks, so a cut mostly falls among equal scores: what is compared is all above them.
TEST(Kvpress, LagKv) {
    const lag_kv_scorer scorer{.lag = 32};
    expect_all_scores(scorer, "lag_kv");
    expect_kept(scorer, "lag_kv", nothing);
    const lag_kv_scorer cross{.lag = 32, .cross_scoring = true};
    expect_all_scores(cross, "lag_kv_cross");
    expect_kept(cross, "lag_kv_cross", nothing);
    expect_all_scores(lag_kv_scorer{}, "lag_kv_short");
    expect_kept(lag_kv_scorer{}, "lag_kv_short", nothing);
}

/// Scores of both layers, the first 180 rows being the context: a prefix of 4 and two chunks. The rows behind them play
/// the part of its repetition.
[[nodiscard]] kvzip_scores reconstructed() {
    kvzip_scores scores({.num_layers = layers().size(),
                         .num_kv_heads = answers().shape("kvzip.scores")[1],
                         .seq_len = answers().shape("kvzip.scores")[2]});
    const auto engine = [&](const kvzip_pass&, kvzip_observer& observe) {
        for (std::size_t place = 0; place < layers().size(); ++place) {
            const layer& of = layers()[place];
            observe(
                place, of.kv(), of.queries().last(of.size().kv.seq_len - scores.shape().seq_len));
        }
    };
    kvzip_reconstruction{.chunk_size = 90, .num_sink_tokens = 4}.score({}, {}, engine, scores);
    return scores;
}

// Chunks begin behind the sinks here, and behind the prefix in kvpress: the same for a prefix as long as the sinks. What
// the sinks score differs, and keeps them first in both.
TEST(Kvpress, Kvzip) {
    const kvzip_scores scores = reconstructed();
    for (std::size_t place = 0; place < layers().size(); ++place) {
        expect_scores(scores.layer(place).values(),
                      {"kvzip.scores", place},
                      1.0,
                      {4, scores.shape().seq_len});
    }
    for (const int percent : recorded_ratios) {
        std::size_t total = 0;
        for (const std::uint8_t stays :
             answers().get<std::uint8_t>("kvzip.kept" + std::to_string(percent))) {
            total += stays;
        }
        const std::vector<selection> kept = kvzip_selector{}.select(scores, {4, 0}, total);
        for (std::size_t place = 0; place < layers().size(); ++place) {
            const auto theirs = kept_by("kvzip", place, percent);
            for (std::size_t head = 0; head < theirs.num_heads(); ++head) {
                EXPECT_EQ(test::list(kept[place].kept(head)), tokens_of(theirs.row(head)));
            }
        }
    }
}

// One budget per layer is one budget for a model of one layer.
TEST(Kvpress, KvzipLayerwise) {
    const kvzip_scores all = reconstructed();
    for_each_set("kvzip_layerwise", [&](std::size_t place, int, const auto& theirs) {
        kvzip_scores own({.num_layers = 1,
                          .num_kv_heads = all.shape().num_kv_heads,
                          .seq_len = all.shape().seq_len});
        std::ranges::copy(all.layer(place).values(), own.layer(0).values().begin());
        std::size_t total = 0;
        for (const std::size_t count : counts_of(theirs)) {
            total += count;
        }
        const std::vector<selection> kept = kvzip_selector{}.select(own, {4, 0}, total);
        for (std::size_t head = 0; head < theirs.num_heads(); ++head) {
            EXPECT_EQ(test::list(kept[0].kept(head)), tokens_of(theirs.row(head)));
        }
    });
}

[[nodiscard]] std::vector<float> recorded_filters(std::size_t place) {
    const std::vector<float> all = answers().get<float>("q_filters.filters");
    const std::size_t size = all.size() / layers().size();
    const std::span<const float> of_layer = std::span(all).subspan(place * size, size);
    return {of_layer.begin(), of_layer.end()};
}

// With the same filters; both libraries subtract the projection.
TEST(Kvpress, QFilters) {
    for (std::size_t place = 0; place < layers().size(); ++place) {
        const std::vector<float> filters = recorded_filters(place);
        const q_filters_scorer scorer{.filters = filters};
        expect_scores(scores_with(scorer, layers()[place]), scores_of("q_filters", place));
        for (const int percent : recorded_ratios) {
            const auto theirs = kept_by("q_filters", place, percent);
            expect_sets(
                select_with(scorer, layers()[place], tokens_of(theirs.row(0)).size(), nothing),
                theirs,
                scores_of("q_filters", place));
        }
    }
}

// The filters come from torch's singular vectors of the same queries; kvpress itself only loads filters. Vectors of
// length 1, averaged over the group.
TEST(Kvpress, QFiltersCalibrated) {
    for (std::size_t place = 0; place < layers().size(); ++place) {
        const problem_size size = layers()[place].size();
        q_filter_calibration calibration(size.num_q_heads, size.kv.num_kv_heads, size.kv.key_dim);
        calibration.add(layers()[place].queries());
        const std::vector<float> ours = calibration.filters();
        const std::vector<float> theirs = recorded_filters(place);
        ASSERT_EQ(ours.size(), theirs.size());
        for (std::size_t i = 0; i < ours.size(); ++i) {
            EXPECT_NEAR(ours[i], theirs[i], 1e-6) << i;
        }
    }
}

// kvpress scores 1 and 0, here newer tokens score higher: the sets are the same once the four sinks are protected.
TEST(Kvpress, StreamingLlm) {
    for (std::size_t place = 0; place < layers().size(); ++place) {
        for (const int percent : recorded_ratios) {
            const auto theirs = kept_by("streaming_llm", place, percent);
            const selection ours = select_with(
                streaming_llm_scorer{}, layers()[place], tokens_of(theirs.row(0)).size(), {4, 0});
            for (std::size_t head = 0; head < theirs.num_heads(); ++head) {
                EXPECT_EQ(test::list(ours.kept(head)), tokens_of(theirs.row(head)));
            }
        }
    }
}

// kvpress lifts the window above all tokens where this library lets it tie with the best; protected as recent tokens it
// stays in both.
TEST(Kvpress, Snapkv) {
    for (const pooling_order order : {pooling_order::reduce_first, pooling_order::pool_first}) {
        const snapkv_scorer defaults{.observation_window = 64,
                                     .pool = pooling::avg,
                                     .pooling_kernel_size = 5,
                                     .order = order};
        expect_all_scores(defaults, "snapkv", 1.0, {0, 233 - 64});
        expect_kept(defaults, "snapkv", {0, 64});
        const snapkv_scorer narrow{.observation_window = 16,
                                   .pool = pooling::avg,
                                   .pooling_kernel_size = 7,
                                   .order = order};
        expect_all_scores(narrow, "snapkv_w16_k7", 1.0, {0, 233 - 16});
        expect_kept(narrow, "snapkv_w16_k7", {0, 16});
    }
}

// Without protection the window stays as well, and so do the tokens that it stands for.
TEST(Kvpress, SnapkvKeepsItsWindowUnprotected) {
    const snapkv_scorer scorer{
        .observation_window = 64, .pool = pooling::avg, .pooling_kernel_size = 5};
    expect_kept(scorer, "snapkv", nothing);
}

TEST(Kvpress, H2oByReachIsObservedAttention) {
    expect_all_scores(h2o_scorer{}, "observed_attention");
    expect_kept(h2o_scorer{}, "observed_attention", nothing);
}

// kvpress lifts the last token above all others; here a recent area of one token protects it.
TEST(Kvpress, Tova) {
    expect_all_scores(tova_scorer{}, "tova", 1.0, {0, 232});
    expect_kept(tova_scorer{}, "tova", {0, 1});
}

// kvpress keeps whole chunks, this library as many tokens as it is asked for: asked for the tokens of those chunks, or for
// whole chunks, it keeps the same ones.
TEST(Kvpress, ChunkKv) {
    const auto check = [](const std::string& press, const std::string& base, std::size_t chunk) {
        for_each_set(press, [&](std::size_t place, int percent, const auto& theirs) {
            const selection ours = select_from(
                chunk_kv_selector{.chunk_size = chunk}, scores_of(base, place), counts_of(theirs));
            const std::vector<std::size_t> budgets(
                theirs.num_heads(), budget::keep_ratio(percent / 100.0, nothing).tokens_for(233));
            const selection whole =
                select_from(chunk_kv_selector{.chunk_size = chunk, .whole = true},
                            scores_of(base, place),
                            budgets);
            for (std::size_t head = 0; head < theirs.num_heads(); ++head) {
                EXPECT_EQ(test::list(ours.kept(head)), tokens_of(theirs.row(head)));
                EXPECT_EQ(test::list(whole.kept(head)), tokens_of(theirs.row(head)));
            }
        });
    };
    check("chunk_kv_knorm", "knorm", 20);
    check("chunk_kv_snapkv_c10", "snapkv", 10);
}

[[nodiscard]] std::vector<std::size_t>
counts_with(const ada_kv_allocator& allocator, const recorded<float>& scores, int percent) {
    allocator.validate();
    test::owned_scratch memory(allocator.scratch_bytes(layers()[0].size()));
    std::vector<std::size_t> counts(scores.num_heads());
    allocate_tokens(allocator,
                    {scores.values(), scores.num_heads(), scores.seq_len()},
                    areas(nothing, scores.seq_len()),
                    budget::keep_ratio(percent / 100.0, nothing).tokens_for(scores.seq_len()),
                    counts,
                    memory.get());
    return counts;
}

TEST(Kvpress, AdaKvPooled) {
    const auto check = [](const std::string& press, const std::string& base, double floor) {
        for_each_set(press, [&](std::size_t place, int percent, const auto& theirs) {
            const recorded<float> scores = scores_of(base, place);
            const auto counts = counts_with({.floor = floor}, scores, percent);
            EXPECT_EQ(counts, counts_of(theirs));
            expect_sets(select_from(top_k_selector{}, scores, counts), theirs, scores);
        });
    };
    check("ada_kv_snapkv_a0", "snapkv", 0.0);
    check("ada_kv_snapkv_a20", "snapkv", 0.2);
    check("ada_kv_snapkv_a50", "snapkv", 0.5);
    check("ada_kv_snapkv_a100", "snapkv", 1.0);
    check("ada_kv_observed_attention_a20", "observed_attention", 0.2);
}

/// The output projection of layer 4 as kvpress was given it.
[[nodiscard]] std::vector<float> projection_weights() {
    const std::vector<std::size_t> shape = inputs().shape("layer4.output");
    const std::vector<std::int8_t> steps = inputs().get<std::int8_t>("layer4.output");
    const std::vector<float> scales = inputs().get<float>("layer4.output.scale");
    std::vector<float> weights;
    for (std::size_t i = 0; i < steps.size(); ++i) {
        weights.push_back(static_cast<float>(steps[i]) * scales[i / shape[1]]);
    }
    return weights;
}

TEST(Kvpress, ProjectedValueNorms) {
    const problem_size size = layers()[0].size();
    const std::vector<float> weights = projection_weights();
    const output_projection projection(
        weights, inputs().shape("layer4.output")[0], size.num_q_heads, size.kv.value_dim);
    test::owned_scratch memory(projected_value_norms_scratch_bytes(size.kv));
    std::vector<float> norms(size.kv.num_kv_heads * size.kv.seq_len);
    projected_value_norms(
        layers()[0].kv(), projection, {norms, size.kv.num_kv_heads, size.kv.seq_len}, memory.get());
    expect_scores(norms, {"critical_kv.norms", 0});
}

TEST(Kvpress, CriticalKv) {
    const recorded<float> norms("critical_kv.norms", 0);
    const given_value_norms given{{norms.values(), norms.num_heads(), norms.seq_len()}};
    const auto expect_same = [](const selection& ours, const recorded<std::uint8_t>& theirs) {
        for (std::size_t head = 0; head < theirs.num_heads(); ++head) {
            EXPECT_EQ(test::list(ours.kept(head)), tokens_of(theirs.row(head))) << "head " << head;
        }
    };
    using selector = critical_kv_selector<given_value_norms>;
    for_each_set("critical_kv_snapkv", [&](std::size_t place, int, const auto& theirs) {
        expect_same(
            select_from(selector{.norms = given}, scores_of("snapkv", place), counts_of(theirs)),
            theirs);
    });
    // Both at their own scales: the window is protected here and lifted there.
    const snapkv_scorer scorer{
        .observation_window = 64, .pool = pooling::avg, .pooling_kernel_size = 5};
    for_each_set("critical_kv_snapkv", [&](std::size_t place, int, const auto& theirs) {
        const recorded<float> recorded_scores = scores_of("snapkv", place);
        std::vector<float> ours = scores_with(scorer, layers()[place]);
        for (std::size_t head = 0; head < recorded_scores.num_heads(); ++head) {
            const std::span<const float> lifted = recorded_scores.row(head).last(64);
            std::copy(lifted.begin(),
                      lifted.end(),
                      ours.begin() + static_cast<std::ptrdiff_t>(head * 233 + 233 - 64));
        }
        expect_same(select_from(selector{.norms = given},
                                const_head_scores(ours, theirs.num_heads(), theirs.seq_len()),
                                counts_of(theirs)),
                    theirs);
    });
    for_each_set(
        "critical_kv_observed_attention_f25", [&](std::size_t place, int, const auto& theirs) {
            expect_same(select_from(selector{.first_stage = 0.25, .epsilon = 1e-3, .norms = given},
                                    scores_of("observed_attention", place),
                                    counts_of(theirs)),
                        theirs);
        });
    // With the counts of Ada-KV: what kvpress calls CriticalAdaKV, as long as the first stage of each head takes the
    // tokens that are safe there.
    for_each_set("critical_ada_kv_snapkv", [&](std::size_t place, int percent, const auto& theirs) {
        const recorded<float> scores = scores_of("snapkv", place);
        const auto counts = counts_with({.floor = 0.2}, scores, percent);
        EXPECT_EQ(counts, counts_of(theirs));
        expect_same(select_from(selector{.norms = given}, scores, counts), theirs);
    });
}

// kvpress draws the line through n (1 - r) as it is, this library through a whole number of tokens. Where that is one,
// the budgets are equal. Where it is not, a layer is off by two tokens at most (the line doubles the fraction and rounds),
// and where the line ends within that of the window, one of the two may have even layers instead of a line. A budget
// below the window is an error here; kvpress then prunes the window.
TEST(Kvpress, PyramidKv) {
    const std::vector<std::int32_t> cases = answers().get<std::int32_t>("pyramid_kv.cases");
    const std::vector<std::int32_t> budgets = answers().get<std::int32_t>("pyramid_kv.budgets");
    const std::size_t num_cases = answers().shape("pyramid_kv.budgets")[0];
    const std::size_t num_layers = answers().shape("pyramid_kv.budgets")[1];
    std::size_t num_compared = 0;
    for (std::size_t i = 0; i < num_cases; ++i) {
        const auto window = static_cast<std::size_t>(cases[4 * i]);
        const auto seq_len = static_cast<std::size_t>(cases[4 * i + 1]);
        const std::int32_t removed = cases[4 * i + 2];
        SCOPED_TRACE("window " + std::to_string(window) + ", tokens " + std::to_string(seq_len) +
                     ", removed " + std::to_string(removed) + " %, beta " +
                     std::to_string(cases[4 * i + 3]));
        const pyramid_kv rule{.beta = static_cast<double>(cases[4 * i + 3]),
                              .rule = pyramid_rule::kvpress};
        const budget average = budget::keep_ratio(1.0 - removed / 100.0, {0, window});
        if (seq_len * static_cast<std::size_t>(100 - removed) / 100 < window) {
            EXPECT_THROW(static_cast<void>(rule.layer_tokens(num_layers, seq_len, average)),
                         std::invalid_argument);
            continue;
        }
        const std::vector<std::size_t> ours = rule.layer_tokens(num_layers, seq_len, average);
        const std::span<const std::int32_t> theirs =
            std::span(budgets).subspan(i * num_layers, num_layers);
        ++num_compared;
        for (std::size_t l = 0; l < num_layers; ++l) {
            EXPECT_EQ(ours[l], static_cast<std::size_t>(theirs[l])) << "layer " << l;
        }
    }
    EXPECT_GE(num_compared, 20U);
}

// kvpress moves the rows that stay to the positions 0, 1, 2 ..., as this library does where all heads keep as many. It
// rounds frequencies and angles to f32, relative 2^-24 each, whatever the keys are: turned by 175 positions at most, a
// pair of channels is off by 175 * 2^-23 of its length.
TEST(Kvpress, KeyRerotation) {
    const layer& of = layers()[0];
    const kv_shape shape = of.size().kv;
    const std::vector<std::size_t> expected_shape = answers().shape("key_rerotation.keys");
    const std::vector<float> expected = answers().get<float>("key_rerotation.keys");
    std::vector<float> keys;
    for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
        for (std::size_t token = 0; token < shape.seq_len; ++token) {
            for (std::size_t k = 0; k < shape.key_dim; ++k) {
                keys.push_back(to_float(of.kv().key(head, token)[k]));
            }
        }
    }
    std::vector<float> values = keys;
    const kv_view<float> kv(keys, values, shape);
    const selection kept = select_with(knorm_scorer{}, of, expected_shape[1], nothing);
    const rope_rotation rotation({.theta = std::stod(inputs().metadata("rope_theta"))},
                                 shape.key_dim);
    test::owned_scratch memory(rotation.scratch_bytes());
    compact(kv, kept);
    rerotate(kv,
             kept,
             next_position(key_positions::consecutive, shape.seq_len, kept),
             rotation,
             memory.get());
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const std::size_t k = i % shape.key_dim;
        const std::size_t row = i / shape.key_dim % expected_shape[1];
        const std::size_t head = i / shape.key_dim / expected_shape[1];
        const std::size_t half = shape.key_dim / 2;
        const std::size_t partner = k < half ? i + half : i - half;
        const float length = std::hypot(expected[i], expected[partner]);
        ASSERT_NEAR(kv.key(head, row)[k], expected[i], length * (175.0F + 4.0F) * 0x1p-23F)
            << "head " << head << ", row " << row << ", channel " << k;
    }
}

} // namespace
} // namespace kvcrush
