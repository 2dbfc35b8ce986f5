// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/cache/compact.hpp>
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/shape_only.hpp>
#include <kvcrush/grouping/second_score.hpp>
#include <kvcrush/retention/given.hpp>
#include <kvcrush/retention/h2o.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/retention/streaming_llm.hpp>
#include <kvcrush/select/horizons.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>
#include <kvcrush/select/top_k.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace kvcrush {
namespace {

std::string message_of(auto&& build) {
    try {
        build();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing was thrown";
}

struct random_cache {
    explicit random_cache(std::size_t tokens)
        : shape{2, tokens, 8, 8}, keys(2 * tokens * 8), queries(6 * tokens * 8) {
        for (std::size_t i = 0; i < keys.size(); ++i) {
            keys[i] = random_unit(1, 0, i) - 0.5F;
        }
        for (std::size_t i = 0; i < queries.size(); ++i) {
            queries[i] = 6.0F * (random_unit(2, 0, i) - 0.5F);
        }
    }
    [[nodiscard]] kv_view<float> kv() { return {keys, keys, shape}; }
    [[nodiscard]] query_view all_queries() const { return {queries, 6, shape.seq_len, 8}; }

    kv_shape shape;
    std::vector<float> keys;
    std::vector<float> queries;
};

TEST(Compressor, ChecksPoliciesWhenItIsBuilt) {
    EXPECT_THROW((compressor(snapkv_scorer{.pooling_kernel_size = 4}, top_k_selector{})),
                 std::invalid_argument);
    EXPECT_THROW((compressor(snapkv_scorer{}, kvcrush_selector<>{.share = 2.0})),
                 std::invalid_argument);
}

TEST(Compressor, ChecksSizesWhenItPlans) {
    compressor crush(snapkv_scorer{}, kvcrush_selector<>{});
    EXPECT_EQ(message_of([&] {
                  crush.plan({{4, 100, 8, 8}, 6}, budget::tokens(50));
              }),
              "kvcrush::compressor: num_q_heads is 6; it must be a multiple of num_kv_heads (4)");
    EXPECT_EQ(message_of([&] {
                  crush.plan({{4, 100, 8, 8}, 0}, budget::tokens(50));
              }),
              "kvcrush::compressor: snapkv looks at attention; num_q_heads is 0 and must be given");
    EXPECT_THROW(crush.plan({{4, 100, 8, 8}, 8}, budget::tokens(35)), std::invalid_argument);
    EXPECT_THROW(
        crush.plan({{std::size_t{1} << 40, std::size_t{1} << 31, 8, 8}, std::size_t{1} << 40},
                   budget::tokens(50)),
        std::invalid_argument);
    EXPECT_NO_THROW(crush.plan({{4, 100, 8, 8}, 8}, budget::tokens(36)));
    EXPECT_EQ(crush.tokens_per_head(), 36U);
}

TEST(Compressor, ChecksWhatTheBitsOfThePortraitNeed) {
    compressor crush(knorm_scorer{}, kvcrush_selector<linspace_picker, snapkv_scorer>{});
    EXPECT_EQ(
        message_of([&] {
            crush.plan({{2, 64, 4, 4}, 0}, budget::tokens(50));
        }),
        "kvcrush::compressor: kvcrush looks at attention; num_q_heads is 0 and must be given");
    EXPECT_NO_THROW(crush.plan({{2, 64, 4, 4}, 4}, budget::tokens(50)));
}

TEST(Compressor, RefusesSizesThatOverflow) {
    const std::size_t huge = std::size_t{1} << 62;
    compressor crush(snapkv_scorer{}, top_k_selector{});
    for (const kv_shape shape : {kv_shape{1, 64, huge, 4},
                                 kv_shape{huge, 64, 4, 4},
                                 kv_shape{2 * huge, 0, 4, 4},
                                 kv_shape{4000000000, 4000000000, 4000000000, 4}}) {
        EXPECT_THROW(crush.plan({shape, shape.num_kv_heads}, budget::tokens(64)),
                     std::invalid_argument);
    }
}

#ifdef NDEBUG
TEST(Compressor, RefusesAnotherSizeThanPlanned) {
    random_cache planned(60);
    random_cache grown(70);
    compressor crush(snapkv_scorer{}, kvcrush_selector<>{});
    EXPECT_TRUE(crush.select(planned.kv(), planned.all_queries()).refused()) << "never planned";
    crush.plan({planned.shape, 6}, budget::tokens(40));
    EXPECT_EQ(crush.select(planned.kv(), planned.all_queries()).num_kv_heads(), 2U);
    EXPECT_EQ(crush.scores().num_heads(), 2U);
    const select_result refused = crush.select(grown.kv(), grown.all_queries());
    EXPECT_TRUE(refused.refused());
    EXPECT_EQ(crush.scores().num_heads(), 0U);
    EXPECT_EQ(message_of([&] { static_cast<void>(refused.kept(0)); }),
              "kvcrush::compressor: select() was given another size than the planned one; plan() "
              "again when the size of the cache changes");
    const std::vector<float> before = grown.keys;
    EXPECT_THROW(compact(grown.kv(), crush.select(grown.kv(), grown.all_queries())),
                 std::invalid_argument);
    EXPECT_EQ(grown.keys, before);
    EXPECT_FALSE(crush.select(planned.kv(), planned.all_queries()).refused());
}

TEST(Compressor, RefusesKeysWithoutChannels) {
    std::vector<float> none(6);
    compressor crush(snapkv_scorer{}, top_k_selector{});
    crush.plan({{2, 60, 0, 0}, 6}, budget::tokens(40));
    EXPECT_TRUE(
        crush.select(kv_view<float>({}, {}, kv_shape{2, 60, 0, 0}), query_view(none, 6, 8, 0))
            .refused());
}
#else
TEST(CompressorDeathTest, AssertsAnotherSizeThanPlanned) {
    random_cache planned(60);
    random_cache grown(70);
    compressor crush(snapkv_scorer{}, kvcrush_selector<>{});
    crush.plan({planned.shape, 6}, budget::tokens(40));
    EXPECT_DEATH(static_cast<void>(crush.select(grown.kv(), grown.all_queries())),
                 "plan\\(\\) again");
}
#endif

TEST(Compressor, ServesLayersOfAnotherSizeAfterANewPlan) {
    compressor crush(h2o_scorer{}, kvcrush_selector<>{});
    for (const std::size_t tokens : std::initializer_list<std::size_t>{100, 37, 0, 1, 200}) {
        random_cache data(tokens);
        const budget half = budget::keep_ratio(0.5, {2, 8});
        crush.plan({data.shape, 6}, half);
        const selection& kept = crush.select(data.kv(), data.all_queries());
        ASSERT_EQ(kept.num_kv_heads(), 2U);
        EXPECT_EQ(kept.kept(1).size(), half.tokens_for(tokens)) << tokens;
    }
}

TEST(Compressor, KeyScorersLeaveQueriesAside) {
    random_cache data(80);
    compressor crush(knorm_scorer{}, top_k_selector{});
    crush.plan({data.shape, 6}, budget::tokens(40));
    const selection without = crush.select(data.kv());
    EXPECT_EQ(crush.select(data.kv(), data.all_queries()), without);
}

TEST(Compressor, SecondRunGivesTheSameAnswer) {
    random_cache data(130);
    compressor crush(snapkv_scorer{}, kvcrush_selector<>{});
    crush.plan({data.shape, 6}, budget::keep_ratio(0.5));
    const selection first = crush.select(data.kv(), data.all_queries());
    EXPECT_EQ(crush.select(data.kv(), data.all_queries()), first);
}

TEST(Compressor, SaysHowManyQueriesItLooksAt) {
    const compressor plain(snapkv_scorer{.observation_window = 8}, top_k_selector{});
    EXPECT_EQ(plain.num_queries(100), 8U);
    EXPECT_EQ(plain.num_queries(5), 5U);
    const compressor dual(
        snapkv_scorer{},
        kvcrush_selector<second_score_picker<h2o_scorer>>{.picker = {.second = {.last = 256}}});
    EXPECT_EQ(dual.num_queries(1000), 256U);
    const compressor keys(knorm_scorer{}, kvcrush_selector<>{});
    EXPECT_EQ(keys.num_queries(1000), 0U);
}

TEST(Compressor, TakesAnotherScorerFromLayerToLayer) {
    std::vector<float> memory(10 * 2);
    const kv_view<float> kv(memory, memory, kv_shape{1, 10, 2, 2});
    compressor crush(given_scorer{}, top_k_selector{});
    crush.plan({kv.shape()}, budget::tokens(3, {0, 0}));
    for (const std::size_t best : std::initializer_list<std::size_t>{0, 7}) {
        std::vector<float> scores(10, 0.0F);
        scores[best] = scores[best + 1] = scores[best + 2] = 1.0F;
        crush.set_scorer({const_head_scores(scores, 1, 10)});
        EXPECT_EQ(crush.select(kv).kept(0).front(), best);
    }
}

TEST(Compressor, CopiesOfAPlannedOneHaveItsMemory) {
    random_cache data(90);
    compressor crush(snapkv_scorer{}, kvcrush_selector<>{});
    crush.plan({data.shape, 6}, budget::tokens(40));
    compressor copied(crush); // room that a copy lacks is asserted
    compressor assigned(snapkv_scorer{}, kvcrush_selector<>{});
    assigned = crush;
    const selection expected = crush.select(data.kv(), data.all_queries());
    EXPECT_EQ(copied.select(data.kv(), data.all_queries()).value(), expected);
    EXPECT_EQ(assigned.select(data.kv(), data.all_queries()).value(), expected);
}

TEST(Compressor, HandsOutTheScoresThatDecided) {
    random_cache data(50);
    const h2o_scorer scorer{};
    const problem_size size{data.shape, 6};
    compressor crush(scorer, top_k_selector{});
    EXPECT_EQ(crush.scores().num_heads(), 0U);
    crush.plan(size, budget::tokens(40));
    EXPECT_EQ(crush.observed().num_heads(), 0U) << "nothing was scored yet";
    static_cast<void>(crush.select(data.kv(), data.all_queries()));

    std::vector<float> mass(6 * 50);
    std::vector<float> folded(2 * 50);
    test::owned_scratch memory(scorer.scratch_bytes(size));
    observe(scorer, head_scores(mass, 6, 50), memory.get(), data.kv(), data.all_queries());
    scorer.reduce(head_scores(mass, 6, 50), head_scores(folded, 2, 50), memory.get());
    EXPECT_TRUE(std::ranges::equal(crush.observed().values(), mass));
    EXPECT_TRUE(std::ranges::equal(crush.scores().values(), folded));

    compressor keys(knorm_scorer{}, top_k_selector{});
    keys.plan(size, budget::tokens(40));
    static_cast<void>(keys.select(data.kv()));
    EXPECT_EQ(keys.scores().values().data(), keys.observed().values().data());
    EXPECT_EQ(keys.scores().num_heads(), 2U);
}

/// Scoring is an error.
struct forbidden_scorer {
    static constexpr std::string_view name = "forbidden";
    static constexpr bool needs_attention = false;
    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}
    template <KvSource Kv>
    void score(const Kv&, head_scores scores) const noexcept {
        ADD_FAILURE() << "nobody reads the scores";
        std::fill(scores.values().begin(), scores.values().end(), 0.0F);
    }
};

TEST(Compressor, ScoresNothingThatNobodyReads) {
    random_cache data(300);
    compressor crush(forbidden_scorer{}, horizons_selector{});
    compressor scored(snapkv_scorer{}, horizons_selector{});
    crush.plan({data.shape, 6}, budget::tokens(100));
    scored.plan({data.shape, 6}, budget::tokens(100));
    const query_view queries = data.all_queries();
    EXPECT_EQ(crush.select(data.kv(), queries).value(), scored.select(data.kv(), queries).value());
    EXPECT_EQ(crush.scores().num_heads(), 0U);
}

TEST(Compressor, TakesAShapeWhereNobodyReadsRows) {
    const kv_shape shape{2, 12, 0, 0};
    const std::vector<float> scores = test::random_scores(24, 3);
    compressor crush(given_scorer{const_head_scores(scores, 2, 12)}, top_k_selector{});
    crush.plan({shape}, budget::tokens(5, {1, 1}));
    EXPECT_EQ(crush.select(shape_only{shape}).total(), 10U);
    compressor newest(streaming_llm_scorer{}, top_k_selector{});
    newest.plan({shape}, budget::tokens(5, {1, 1}));
    EXPECT_EQ(test::list(newest.select(shape_only{shape}).kept(1)),
              (std::vector<token_index>{0, 8, 9, 10, 11}));
}

TEST(Compressor, AsksForChannelsWhereKeysAreRead) {
    compressor crush(knorm_scorer{}, top_k_selector{});
    EXPECT_EQ(message_of([&] {
                  crush.plan({{2, 60, 0, 0}}, budget::tokens(40));
              }),
              "kvcrush::compressor: knorm reads keys; key_dim is 0 and must be given");
    EXPECT_NO_THROW(crush.plan({{2, 0, 0, 0}}, budget::tokens(40)));
}

} // namespace
} // namespace kvcrush
