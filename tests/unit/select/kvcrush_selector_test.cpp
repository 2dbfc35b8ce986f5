// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/grouping/most_important.hpp>
#include <kvcrush/grouping/step.hpp>
#include <kvcrush/retention/h2o.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/retention/streaming_llm.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>
#include <kvcrush/select/page_selector.hpp>
#include <kvcrush/select/top_k.hpp>
#include <kvcrush/signature/key_sign.hpp>

#include "support/attention_data.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

using tokens = std::vector<token_index>;

static_assert(Selector<kvcrush_selector<>, attention_view>);
static_assert(Selector<kvcrush_selector<step_picker, snapkv_scorer>, kv_view<float>, query_view>);

/// Runs known answer 1a of the specification: importance is the sum over four heads, half of a budget of four goes to
/// representatives.
template <typename Picker>
tokens known(anchor_kind kind, Picker picker) {
    const std::vector<float> heads{9, 1, 8, 2, 7, 3, 6, 4, 9, 8, 7, 6, 5, 4, 3, 2,
                                   1, 2, 3, 4, 5, 6, 7, 8, 5, 5, 5, 5, 1, 1, 9, 9};
    const std::vector<float> importance{24, 16, 23, 17, 18, 14, 25, 23};
    const kvcrush_selector<Picker> selector{.share = 0.5, .anchor = {kind}, .picker = picker};
    const std::array<std::size_t, 1> counts{4};
    selection out;
    out.reserve(1, 8);
    test::owned_scratch memory(selector.scratch_bytes({{1, 8, 1, 1}, 4}));
    selector.select({const_head_scores(importance, 1, 8),
                     const_head_scores(heads, 4, 8),
                     areas({0, 0}, 8),
                     counts,
                     memory.get()},
                    out);
    return test::list(out.kept(0));
}

TEST(KvcrushSelector, KnownAnswerLinspace) { // important 0 and 6, and the picks (3,7), (1,5), (1,4)
    EXPECT_EQ(known(anchor_kind::zeros, linspace_picker{}), (tokens{0, 3, 6, 7}));
    EXPECT_EQ(known(anchor_kind::mean, linspace_picker{}), (tokens{0, 3, 6, 7}));
    EXPECT_EQ(known(anchor_kind::ones, linspace_picker{}), (tokens{0, 1, 5, 6}));
    EXPECT_EQ(known(anchor_kind::alternate, linspace_picker{}), (tokens{0, 1, 4, 6}));
}

TEST(KvcrushSelector, KnownAnswerStep) { // picks (3,2), (1,7), (1,7)
    EXPECT_EQ(known(anchor_kind::zeros, step_picker{}), (tokens{0, 2, 3, 6}));
    EXPECT_EQ(known(anchor_kind::ones, step_picker{}), (tokens{0, 1, 6, 7}));
    EXPECT_EQ(known(anchor_kind::alternate, step_picker{}), (tokens{0, 1, 6, 7}));
}

TEST(KvcrushSelector,
     KnownAnswerMostImportant) { // order 3 5 1 | 2 4 7: best of each stratum are 3 and 2
    EXPECT_EQ(known(anchor_kind::zeros, most_important_picker{}), (tokens{0, 2, 3, 6}));
}

TEST(KvcrushSelector, WithoutAShareItIsTopK) {
    const std::vector<float> scores = test::random_scores(2 * 100, 5);
    std::vector<float> keys(2 * 100 * 4);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        keys[i] = random_unit(9, 0, i);
    }
    const kv_view<float> kv(keys, keys, kv_shape{2, 100, 4, 4});
    compressor with(knorm_scorer{}, kvcrush_selector<>{.share = 0.0});
    compressor without(knorm_scorer{}, top_k_selector{});
    with.plan({kv.shape()}, budget::tokens(50));
    without.plan({kv.shape()}, budget::tokens(50));
    EXPECT_EQ(with.select(kv).value(), without.select(kv).value());
}

TEST(KvcrushSelector, BitsMayComeFromAnotherScorer) {
    const std::vector<float> weights = test::snapkv_known_weights();
    const attention_view attention(weights, 2, 2, 8);
    const h2o_scorer base{.normalise = h2o_normalisation::none};
    const problem_size size{{1, 8, 4, 4}, 2};
    // The same scorer named twice must change nothing.
    compressor own(base, kvcrush_selector<>{.share = 0.5});
    compressor again(base,
                     kvcrush_selector<linspace_picker, h2o_scorer>{.share = 0.5, .bits = base});
    own.plan(size, budget::tokens(5, {1, 1}));
    again.plan(size, budget::tokens(5, {1, 1}));
    EXPECT_EQ(own.select(attention).value(), again.select(attention).value());
}

TEST(KvcrushSelector, RefusesMoreHeadsThanACodeHolds) {
    compressor crush(knorm_scorer{}, kvcrush_selector<>{});
    EXPECT_NO_THROW(crush.plan({{4096, 50, 2, 2}}, budget::tokens(40)));
    EXPECT_THROW(crush.plan({{4097, 50, 2, 2}}, budget::tokens(40)), std::invalid_argument);
}

TEST(KvcrushSelector, NoHeadAtAllKeepsNothing) {
    std::vector<float> none;
    const kv_view<float> kv(none, none, kv_shape{0, 100, 2, 2});
    const auto kept = [&](const auto& selector) {
        compressor crush(knorm_scorer{}, selector);
        crush.plan({kv.shape()}, budget::tokens(60));
        return crush.select(kv).num_kv_heads();
    };
    EXPECT_EQ(kept(kvcrush_selector<>{}), 0U);
    EXPECT_EQ(kept(kvcrush_selector<>{.anchor = {.count = 8}}), 0U);
    EXPECT_EQ(kept(page_selector<>{}), 0U);
}

TEST(KvcrushSelector, KeysWithoutChannelsAreAllAlike) {
    std::vector<float> none;
    std::vector<float> values(100 * 2);
    const kv_view<float> kv(none, values, kv_shape{1, 100, 0, 2});
    const kvcrush_selector<linspace_picker, own_scores, key_sign_signature> selector{};
    compressor crush(knorm_scorer{}, selector);
    EXPECT_THROW(crush.plan({kv.shape()}, budget::tokens(60)), std::invalid_argument)
        << "knorm has nothing to read";
    compressor newest(streaming_llm_scorer{}, selector);
    newest.plan({kv.shape()}, budget::tokens(60));
    EXPECT_EQ(newest.select(kv).kept(0).size(), 60U);
}

TEST(KvcrushSelector, RefusesSharesOutsideTheUnitInterval) {
    EXPECT_THROW(kvcrush_selector<>{.share = 1.01}.validate(), std::invalid_argument);
    EXPECT_THROW(kvcrush_selector<>{.share = -0.01}.validate(), std::invalid_argument);
    EXPECT_THROW(kvcrush_selector<>{.share = std::numeric_limits<double>::quiet_NaN()}.validate(),
                 std::invalid_argument);
    EXPECT_THROW(
        (kvcrush_selector<linspace_picker, snapkv_scorer>{.bits = {.pooling_kernel_size = 2}}
             .validate()),
        std::invalid_argument);
}

} // namespace
} // namespace kvcrush
