// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/retention/given.hpp>
#include <kvcrush/retention/kvzip.hpp>

#include "reference/kvzip.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

static_assert(KeyScorer<given_scorer, kv_view<float>>);

using ids = std::vector<std::int32_t>;
constexpr std::size_t num_layers = 2;
constexpr std::size_t num_kv_heads = 2;
constexpr std::size_t num_q_heads = 6;
constexpr std::size_t dim = 8;

/// A model whose rows are random numbers of their place, so that every pass can be computed again.
struct toy_engine {
    std::size_t context;
    bool apart = false; ///< rows of the pass in memory of their own
    std::vector<kvzip_pass> passes{};
    std::vector<ids> fed{};
    /// Tokens of a pass for which score() gave no ids.
    std::size_t own_length = 0;

    [[nodiscard]] static std::vector<float> numbers(std::uint64_t stream, std::size_t count) {
        std::vector<float> out(count);
        for (std::size_t i = 0; i < count; ++i) {
            out[i] = 4.0F * (random_unit(3, stream, i) - 0.5F);
        }
        return out;
    }
    [[nodiscard]] std::vector<float>
    keys(std::size_t pass, std::size_t layer, std::size_t repeats) const {
        // The context is the same in every pass.
        const std::vector<float> fixed = numbers(layer, num_kv_heads * context * dim);
        const std::vector<float> added =
            numbers(100 + 10 * pass + layer, num_kv_heads * repeats * dim);
        std::vector<float> all;
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            const auto from = [&](const std::vector<float>& part, std::size_t rows) {
                const auto first = part.begin() + static_cast<std::ptrdiff_t>(head * rows * dim);
                all.insert(all.end(), first, first + static_cast<std::ptrdiff_t>(rows * dim));
            };
            from(fixed, context);
            from(added, repeats);
        }
        return all;
    }
    [[nodiscard]] static std::vector<float>
    queries(std::size_t pass, std::size_t layer, std::size_t repeats) {
        return numbers(200 + 10 * pass + layer, num_q_heads * repeats * dim);
    }

    void operator()(const kvzip_pass& pass, kvzip_observer& observe) {
        passes.push_back(pass);
        fed.emplace_back(pass.tokens.begin(), pass.tokens.end());
        const std::size_t repeats = pass.tokens.empty() ? own_length : pass.tokens.size();
        for (std::size_t layer = num_layers; layer-- > 0;) { // any order
            std::vector<float> all = keys(pass.index, layer, repeats);
            const std::vector<float> asked = queries(pass.index, layer, repeats);
            const query_view view(asked, num_q_heads, repeats, dim);
            const kv_shape shape{num_kv_heads, context + repeats, dim, dim};
            const kv_view<float> kv(all, all, shape);
            if (apart) {
                std::vector<float> added =
                    numbers(100 + 10 * pass.index + layer, num_kv_heads * repeats * dim);
                const kv_view<const float> rows{
                    {added}, {added}, kv_shape{num_kv_heads, repeats, dim, dim}};
                observe(layer, kv.first(context), rows, view);
            } else {
                observe(layer, kv, view);
            }
        }
    }
};

ids count_from(std::int32_t first, std::size_t count) {
    ids out(count);
    for (std::size_t i = 0; i < count; ++i) {
        out[i] = first + static_cast<std::int32_t>(i);
    }
    return out;
}

struct request {
    ids first{1, 2, 3};
    ids next{4, 5};
    ids suffix{9};
    [[nodiscard]] kvzip_prompt prompt() const { return {first, next, suffix}; }
};

TEST(KvzipReconstruction, AsksForTheChunksOneAfterTheOther) {
    const request asked;
    const ids context = count_from(100, 13);
    toy_engine engine{13};
    kvzip_scores scores({num_layers, num_kv_heads, 13});
    const kvzip_reconstruction policy{.chunk_size = 4, .num_sink_tokens = 3, .num_lead_tokens = 2};
    policy.score(context, asked.prompt(), engine, scores);
    ASSERT_EQ(engine.passes.size(), 3U);
    EXPECT_EQ(policy.num_passes(13), 3U);
    EXPECT_EQ(engine.fed[0], (ids{1, 2, 3, 9, 103, 104, 105, 106}));
    EXPECT_EQ(engine.fed[1], (ids{4, 5, 105, 106, 9, 107, 108, 109, 110}));
    EXPECT_EQ(engine.fed[2], (ids{4, 5, 109, 110, 9, 111, 112}));
    EXPECT_EQ(engine.passes[2].begin, 11U);
    EXPECT_EQ(engine.passes[2].end, 13U);
}

TEST(KvzipReconstruction, EqualsTheReference) {
    const request asked;
    for (const std::size_t n : std::initializer_list<std::size_t>{5, 64, 131}) {
        for (const std::size_t chunk : std::initializer_list<std::size_t>{1, 40, 500}) {
            if (chunk == 1 && n > 64) {
                continue;
            }
            for (const bool apart : {false, true}) {
                toy_engine engine{n, apart};
                kvzip_scores scores({num_layers, num_kv_heads, n});
                kvzip_reconstruction{.chunk_size = chunk}.score(
                    count_from(0, n), asked.prompt(), engine, scores);
                for (std::size_t layer = 0; layer < num_layers; ++layer) {
                    std::vector<float> best(num_kv_heads);
                    for (const kvzip_pass& pass : engine.passes) {
                        const std::size_t repeats = engine.fed[pass.index].size();
                        const auto expected = reference::repeat_scores(
                            toy_engine::queries(pass.index, layer, repeats),
                            engine.keys(pass.index, layer, repeats),
                            num_q_heads,
                            num_kv_heads,
                            n,
                            repeats,
                            dim,
                            4,
                            pass.begin,
                            pass.end,
                            1.0 / std::sqrt(8.0));
                        for (std::size_t head = 0; head < num_kv_heads; ++head) {
                            for (std::size_t j = pass.begin; j < pass.end; ++j) {
                                const float score = std::as_const(scores).layer(layer).row(head)[j];
                                const double wanted =
                                    expected[head * (pass.end - pass.begin) + j - pass.begin];
                                ASSERT_NEAR(
                                    static_cast<double>(score), wanted, 1e-4 * wanted + 1e-7);
                                best[head] = std::max(best[head], score);
                            }
                        }
                    }
                    for (std::size_t head = 0; head < num_kv_heads; ++head) {
                        for (std::size_t j = 0; j < 4; ++j) {
                            EXPECT_EQ(scores.layer(layer).row(head)[j], best[head]) << "a sink";
                        }
                    }
                }
            }
        }
    }
}

TEST(KvzipReconstruction, EnginesMayBuildTheirOwnPasses) {
    toy_engine engine{20};
    engine.own_length = 7;
    kvzip_scores scores({num_layers, num_kv_heads, 20});
    kvzip_reconstruction{.chunk_size = 9}.score({}, {}, engine, scores);
    EXPECT_EQ(engine.passes.size(), 2U);
    EXPECT_TRUE(engine.fed[0].empty());
    EXPECT_GT(scores.layer(1).row(1)[19], 0.0F);
}

TEST(KvzipReconstruction, ShortContextsNeedNoPass) {
    for (const std::size_t n : std::initializer_list<std::size_t>{0, 1, 4}) {
        toy_engine engine{n};
        kvzip_scores scores({num_layers, num_kv_heads, n});
        kvzip_reconstruction{}.score(count_from(0, n), {}, engine, scores);
        EXPECT_TRUE(engine.passes.empty());
    }
}

/// The message of the error that an engine's mistake leads to.
std::string complaint(const std::function<void(const kvzip_pass&, kvzip_observer&)>& engine) {
    const request asked;
    kvzip_scores scores({num_layers, num_kv_heads, 10});
    const ids context = count_from(0, 10);
    try {
        kvzip_reconstruction{}.score(context, asked.prompt(), engine, scores);
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing";
}

TEST(KvzipReconstruction, SaysWhatTheEngineGotWrong) {
    constexpr std::size_t fed = 10; // three of the request, the suffix, six of the context
    std::vector<float> memory(10000);
    const auto view = [&](std::size_t heads, std::size_t rows, std::size_t width) {
        return kv_view<float>(memory, memory, {heads, rows, width, width});
    };
    const auto asked = [&](std::size_t heads, std::size_t count, std::size_t width) {
        return query_view(memory, heads, count, width);
    };
    const auto shows = [&](std::size_t layer, auto kv, query_view queries) {
        return complaint(
            [=](const kvzip_pass&, kvzip_observer& observe) { observe(layer, kv, queries); });
    };
    EXPECT_EQ(shows(0, view(2, 20, 8), asked(6, fed, 8)),
              "kvcrush::kvzip: pass 0: the engine showed 1 of 2 layers");
    EXPECT_EQ(shows(2, view(2, 20, 8), asked(6, fed, 8)),
              "kvcrush::kvzip: pass 0: there is no layer 2; the scores have 2");
    EXPECT_EQ(shows(1, view(2, 20, 8), asked(6, 9, 8)),
              "kvcrush::kvzip: pass 0, layer 1: 9 queries; the pass has 10 tokens");
    EXPECT_EQ(shows(1, view(2, 19, 8), asked(6, fed, 8)),
              "kvcrush::kvzip: pass 0, layer 1: the cache holds 19 rows; context and repeated "
              "tokens are 10 + 10");
    EXPECT_EQ(shows(1, view(3, 20, 8), asked(6, fed, 8)),
              "kvcrush::kvzip: pass 0, layer 1: the cache has 3 kv heads; the scores have 2");
    EXPECT_EQ(shows(1, view(2, 20, 8), asked(5, fed, 8)),
              "kvcrush::kvzip: pass 0, layer 1: queries of 5 heads and 8 channels do not fit 2 kv "
              "heads of 8");
    EXPECT_EQ(shows(1, view(2, 20, 8), asked(6, fed, 4)),
              "kvcrush::kvzip: pass 0, layer 1: queries of 6 heads and 4 channels do not fit 2 kv "
              "heads of 8");
    EXPECT_EQ(complaint([&](const kvzip_pass&, kvzip_observer& observe) {
                  observe(0, view(2, 20, 8), asked(6, fed, 8));
                  observe(0, view(2, 20, 8), asked(6, fed, 8));
              }),
              "kvcrush::kvzip: pass 0: layer 0 was shown twice");
    EXPECT_EQ(complaint([&](const kvzip_pass&, kvzip_observer& observe) {
                  observe(0, view(2, 10, 8), view(2, 9, 8), asked(6, fed, 8));
              }),
              "kvcrush::kvzip: pass 0, layer 0: the repeated rows are [2, 9, 8]; [2, 10, 8] are "
              "needed");
    EXPECT_EQ(complaint([&](const kvzip_pass&, kvzip_observer& observe) {
                  observe(0, view(2, 11, 8), view(2, 10, 8), asked(6, fed, 8));
              }),
              "kvcrush::kvzip: pass 0, layer 0: the cache holds 11 rows; the context has 10");
    EXPECT_EQ(complaint([](const kvzip_pass&, kvzip_observer&) {}),
              "kvcrush::kvzip: pass 0: the engine showed 0 of 2 layers");
}

TEST(KvzipReconstruction, RefusesWhatMakesNoSense) {
    toy_engine engine{10};
    kvzip_scores scores({num_layers, num_kv_heads, 10});
    EXPECT_THROW(kvzip_reconstruction{}.score(count_from(0, 9), {}, engine, scores),
                 std::invalid_argument);
    EXPECT_THROW(kvzip_reconstruction{.chunk_size = 0}.validate(), std::invalid_argument);
    EXPECT_THROW(kvzip_scores({1, 1, std::size_t{1} << 40}), std::invalid_argument);
    EXPECT_THROW(kvzip_scores({std::size_t{1} << 40, std::size_t{1} << 40, 3}),
                 std::invalid_argument);
}

TEST(KvzipScorer, HandsOverWhatItWasGiven) {
    const std::vector<float> given = test::random_scores(12, 1);
    std::vector<float> out(12);
    const given_scorer scorer{.scores = const_head_scores(given, 2, 6)};
    std::vector<float> memory(12);
    scorer.score(kv_view<float>(memory, memory, {2, 6, 1, 1}), head_scores(out, 2, 6));
    EXPECT_EQ(out, given);
}

} // namespace
} // namespace kvcrush
