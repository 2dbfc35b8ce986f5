// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/allocation/baklava.hpp>
#include <kvcrush/core/random.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

using numbers = std::vector<std::size_t>;
using vec = std::array<float, 2>;

numbers list(const head_counts& counts) { return {counts.values().begin(), counts.values().end()}; }

TEST(Baklava, KnownAnswer) {
    const vec x{1, 0};
    EXPECT_DOUBLE_EQ(direction_change(x, vec{1, 0}), 0.0);
    EXPECT_NEAR(direction_change(x, vec{0.6F, 0.8F}), 0.4, 1e-7);
    EXPECT_DOUBLE_EQ(direction_change(x, vec{0, 1}), 1.0);
    EXPECT_DOUBLE_EQ(direction_change(x, vec{-1, 0}), 2.0);

    baklava_profiler watch(1, 4);
    const std::array<vec, 4> outputs{vec{1, 0}, vec{0.6F, 0.8F}, vec{0, 1}, vec{-1, 0}};
    for (std::size_t head = 0; head < 4; ++head) {
        watch.add_head(0, head, x, outputs[head]);
    }
    // Total 40, at least 4 and at most 16: an average of 10 in a sequence of 16, two fifths of it safe.
    const head_counts counts =
        baklava{.floor = 0.4}.counts(watch.profile(4), {1, 4}, 16, budget::tokens(10, {0, 0}));
    EXPECT_EQ(list(counts), (numbers{4, 7, 13, 16}));
}

TEST(Baklava, VectorsWithoutADirectionAreLeftOut) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = std::numeric_limits<float>::infinity();
    baklava_profiler watch(1, 2);
    watch.add_head(0, 0, vec{1, 0}, vec{0, 1});
    watch.add_head(0, 0, vec{1, 0}, vec{0, 0});
    watch.add_head(0, 0, vec{nan, 0}, vec{0, 1});
    watch.add_head(0, 0, vec{1, 0}, vec{inf, 1});
    EXPECT_EQ(watch.profile(2), head_profile({1, 2}, {1.0, 0.0}, {1.0}, 1));
}

TEST(Baklava, ProfilesFoldGroupsAndKnowLayers) {
    baklava_profiler watch(2, 4);
    const std::array<vec, 4> outputs{vec{1, 0}, vec{0, 1}, vec{-1, 0}, vec{0, 1}};
    for (std::size_t layer = 0; layer < 2; ++layer) {
        for (std::size_t head = 0; head < 4; ++head) {
            watch.add_head(layer, head, vec{1, 0}, outputs[head]);
            watch.add_head(layer, head, vec{2, 0}, outputs[head]);
        }
    }
    watch.add_layer(1, vec{1, 0}, vec{0, 3});
    EXPECT_EQ(watch.profile(2), head_profile({2, 2}, {0.5, 1.5, 0.5, 1.5}, {0.0, 1.0}, 2));
    EXPECT_EQ(watch.profile(2, group_importance::max),
              head_profile({2, 2}, {1.0, 2.0, 1.0, 2.0}, {0.0, 1.0}, 2));
    EXPECT_THROW(static_cast<void>(watch.profile(3)), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(watch.profile(0)), std::invalid_argument);
    EXPECT_THROW(baklava_profiler(std::size_t{1} << 40, std::size_t{1} << 40),
                 std::invalid_argument);
}

TEST(Baklava, AProfileFromAFileGivesTheSameCounts) {
    const model_heads model{3, 2};
    const head_profile profile(model, {0.1, 0.7, 1.0 / 3.0, 0.2, 0.9, 0.4}, {0.3, 0.2, 0.1}, 10);
    std::stringstream file;
    profile.save(file);
    const budget tokens = budget::keep_ratio(0.25);
    EXPECT_EQ(baklava{}.counts(head_profile::load(file), model, 1000, tokens),
              baklava{}.counts(profile, model, 1000, tokens));
}

TEST(Baklava, TwoClassesMoveTokensFromTheLeastToTheMostImportant) {
    const model_heads model{1, 4};
    const head_profile profile(model, {0.5, 0.1, 0.9, 0.4});
    const baklava two{
        .form = baklava_form::two_classes, .floor = 0.5, .high = 0.25, .low = 0.5, .gain = 0.5};
    EXPECT_EQ(list(two.counts(profile, model, 100, budget::tokens(21, {0, 0}))),
              (numbers{21, 16, 31, 16}));
    baklava more = two;
    more.gain = 5.0;
    EXPECT_EQ(list(more.counts(profile, model, 100, budget::tokens(20, {0, 0}))),
              (numbers{20, 10, 40, 10}))
        << "the others cannot pay for more";
    EXPECT_EQ(list(more.counts(profile, model, 25, budget::tokens(20, {0, 0}))),
              (numbers{20, 18, 25, 17}))
        << "nor is there more to keep";
}

TEST(Baklava, TotalsAreExactAndFloorsHold) {
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
        const model_heads model{1 + random_bits(seed, 0, 0) % 7, 1 + random_bits(seed, 0, 1) % 9};
        std::vector<double> heads(model.num_layers * model.num_kv_heads);
        std::vector<double> layers(model.num_layers);
        for (std::size_t i = 0; i < heads.size(); ++i) {
            heads[i] = seed % 5 == 0 ? 0.0 : static_cast<double>(random_unit(seed, 1, i)) * 2.0;
        }
        for (std::size_t l = 0; l < layers.size(); ++l) {
            layers[l] = seed % 7 == 0 ? 1e300 : static_cast<double>(random_unit(seed, 2, l));
        }
        const head_profile profile(model, heads, layers);
        const std::size_t seq_len = 36 + random_bits(seed, 0, 2) % 500;
        const std::size_t average = 36 + random_bits(seed, 0, 3) % (seq_len - 35);
        const budget tokens = budget::tokens(average);
        for (const baklava_form form : {baklava_form::proportional, baklava_form::two_classes}) {
            for (const double floor : {0.0, 0.2, 1.0}) {
                const head_counts counts =
                    baklava{.form = form, .head_power = 2.0, .floor = floor}.counts(
                        profile, model, seq_len, tokens);
                ASSERT_EQ(counts.total(), heads.size() * tokens.tokens_for(seq_len)) << seed;
                for (const std::size_t count : counts.values()) {
                    ASSERT_LE(count, seq_len);
                    ASSERT_GE(static_cast<double>(count) + 1.0,
                              36.0 + floor * static_cast<double>(average - 36));
                }
            }
        }
    }
}

TEST(Baklava, SearchKeepsTheFirstOfTheBest) {
    const std::array<double, 3> powers{0.5, 1.0, 2.0};
    const std::vector<baklava> grid = baklava_grid(baklava{.floor = 0.1}, powers, powers);
    EXPECT_EQ(grid.size(), 9U);
    std::size_t calls = 0;
    const baklava_search_result found = baklava_search(grid, [&](const baklava& candidate) {
        ++calls;
        return candidate.layer_power == 1.0 ? std::nan("") : std::abs(candidate.head_power - 1.1);
    });
    EXPECT_EQ(calls, 9U);
    EXPECT_EQ(found.best, (baklava{.head_power = 1.0, .layer_power = 0.5, .floor = 0.1}));
    EXPECT_NEAR(found.loss, 0.1, 1e-12);
    EXPECT_THROW(static_cast<void>(baklava_search({}, [](const baklava&) { return 1.0; })),
                 std::invalid_argument);
    EXPECT_THROW(
        static_cast<void>(baklava_search(grid, [](const baklava&) { return std::nanf(""); })),
        std::invalid_argument);
    const std::array<double, 1> negative{-1.0};
    EXPECT_THROW(static_cast<void>(baklava_search(baklava_grid({}, negative, powers),
                                                  [](const baklava&) { return 1.0; })),
                 std::invalid_argument);
}

TEST(Baklava, RefusesWrongParametersAndProfilesOfOtherModels) {
    EXPECT_THROW((baklava{.head_power = -1}.validate()), std::invalid_argument);
    EXPECT_THROW((baklava{.layer_power = std::nan("")}.validate()), std::invalid_argument);
    EXPECT_THROW((baklava{.floor = 1.5}.validate()), std::invalid_argument);
    EXPECT_THROW((baklava{.high = 0.7, .low = 0.7}.validate()), std::invalid_argument);
    EXPECT_THROW((baklava{.gain = -0.5}.validate()), std::invalid_argument);
    const head_profile profile({2, 2}, {1, 2, 3, 4});
    EXPECT_THROW(static_cast<void>(baklava{}.counts(profile, {2, 3}, 100, budget::tokens(50))),
                 std::invalid_argument);
}

} // namespace
} // namespace kvcrush
