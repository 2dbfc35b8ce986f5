// SPDX-License-Identifier: Apache-2.0
// A thousand sequences, from the first chunk of the prompt over many decoded tokens: the same blocks go at every
// step, and what follows from the rules holds.
#include <kvcrush/core/random.hpp>
#include <kvcrush/select/openvino_compat.hpp>

#include "reference/openvino_compat.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace kvcrush {
namespace {

constexpr std::array kinds{anchor_kind::random,
                           anchor_kind::zeros,
                           anchor_kind::ones,
                           anchor_kind::mean,
                           anchor_kind::alternate};

/// Numbers of one case, drawn one after the other.
class dice {
public:
    explicit dice(std::uint64_t seed) : seed_(seed) {}
    /// Below `sides`.
    std::size_t operator()(std::size_t sides) {
        return static_cast<std::size_t>(random_bits(seed_, 0, index_++) % sides);
    }
    /// `mode` 0: many ties; 1: all different, and tails as attention has them; 2: equal as floats, different as doubles.
    double score(std::size_t mode) {
        const double unit = random_unit(seed_, 1, index_++);
        return mode == 0   ? static_cast<double>(static_cast<int>(unit * 4))
               : mode == 1 ? unit * unit * unit / (1.0001 - unit)
                           : 1.0 + unit * 0x1p-30;
    }

private:
    std::uint64_t seed_;
    std::uint64_t index_ = 0;
};

struct sequence {
    openvino_compat settings;
    std::size_t layers;
    std::size_t prompt;
    std::size_t chunk;
    std::size_t decoded;
    std::size_t score_mode;
};

sequence draw(dice& roll) {
    sequence s;
    openvino_compat& c = s.settings;
    c.block_size = 1 + roll(32);
    c.num_sink_tokens = c.block_size * (1 + roll(3));
    c.num_recent_tokens = c.block_size * (1 + roll(3));
    c.max_cache_tokens = c.num_sink_tokens + c.num_recent_tokens + c.block_size * (1 + roll(8));
    c.aggregation = roll(2) == 0 ? block_aggregation::sum : block_aggregation::norm_sum;
    c.observation_window = roll(3) == 0 ? 0 : 1 + roll(20);
    c.num_representative_blocks = roll(6);
    c.anchor = kinds[roll(kinds.size())];
    c.seed = roll(1000);
    s.layers = 1 + roll(3);
    s.prompt = 1 + roll(3 * c.max_cache_tokens);
    s.chunk = roll(3) == 0 ? s.prompt : 1 + roll(s.prompt);
    s.decoded = c.block_size * (2 + c.num_representative_blocks) + roll(40);
    s.score_mode = roll(3);
    return s;
}

reference::openvino_settings same(const openvino_compat& c) {
    return {c.block_size,
            c.num_sink_tokens,
            c.num_recent_tokens,
            c.max_cache_tokens,
            c.aggregation == block_aggregation::norm_sum,
            c.observation_window,
            c.num_representative_blocks,
            std::string(name_of(c.anchor)),
            c.seed};
}

/// How often each situation came up, so that the test cannot pass for want of them.
struct situations {
    std::size_t too_few = 0;
    std::size_t all_stay = 0;
    std::size_t farthest_goes = 0;
    std::size_t nearest_stay = 0;
    std::size_t spread = 0;
    std::size_t without = 0;
};

/// What must hold for the blocks that a layer evicted from a cache of a length.
void expect_consequences(const openvino_compat& c,
                         const reference::openvino_eviction& slow,
                         const reference::counts& evicted,
                         std::size_t cached,
                         situations& seen) {
    const std::size_t start = c.num_sink_tokens / c.block_size;
    const std::size_t end = (cached - c.num_recent_tokens) / c.block_size;
    const std::size_t budget = c.num_representative_blocks;
    for (const std::size_t block : evicted) {
        ASSERT_GE(block, start);
        ASSERT_LT(block, end);
    }
    const std::size_t candidates = slow.candidates.size();
    const std::size_t left = cached / c.block_size - evicted.size();
    const std::size_t limit = c.max_cache_tokens / c.block_size;
    if (budget == 0 || candidates < budget) {
        ASSERT_EQ(left, limit);
        ASSERT_TRUE(slow.distances.empty());
        ++(budget == 0 ? seen.without : seen.too_few);
        return;
    }
    ASSERT_EQ(left, limit + budget); // the budget is added
    ASSERT_EQ(evicted.size(), candidates - budget);
    const auto place = [&](std::size_t block) { return std::pair(slow.distances[block], block); };
    const auto farther = [&](std::size_t a, std::size_t b) { return place(a) < place(b); };
    const auto goes = [&](std::size_t block) {
        return std::find(evicted.begin(), evicted.end(), block + start) != evicted.end();
    };
    if (candidates < 2 * budget) {
        for (const std::size_t block : slow.candidates) {
            for (const std::size_t other : slow.candidates) {
                ASSERT_TRUE(!goes(block) || goes(other) || farther(other, block));
            }
        }
    }
    const std::size_t farthest =
        *std::max_element(slow.candidates.begin(), slow.candidates.end(), farther);
    if (candidates == budget) {
        ++seen.all_stay;
    } else if (candidates == budget + 1) {
        ASSERT_EQ(evicted, (reference::counts{farthest + start}));
        ++seen.farthest_goes;
    } else {
        ASSERT_TRUE(goes(farthest)); // a whole step never gets there
        ++(candidates < 2 * budget ? seen.nearest_stay : seen.spread);
    }
}

void run(const sequence& s, dice& roll, situations& met) {
    const openvino_compat& c = s.settings;
    const std::size_t longest = std::max(s.prompt, c.max_cache_tokens) + s.decoded + 1;
    openvino_evictor fast(c, s.layers, longest);
    reference::openvino_eviction slow(same(c), s.layers);
    std::size_t cached = 0;
    std::size_t seen = 0;
    while (seen < s.prompt + s.decoded) {
        const std::size_t step = seen < s.prompt ? std::min(s.chunk, s.prompt - seen) : 1;
        const std::size_t scored = c.scored_queries(s.prompt, seen, step);
        ASSERT_EQ(scored, reference::scored_queries(c.observation_window, s.prompt, step, seen));
        cached += step;
        seen += step;
        std::vector<double> scores(cached);
        for (std::size_t layer = 0; layer < s.layers; ++layer) {
            for (double& score : scores) {
                score = roll.score(s.score_mode);
            }
            if (s.score_mode == 1) { // as engines have them
                const std::vector<float> floats(scores.begin(), scores.end());
                scores.assign(floats.begin(), floats.end());
                fast.register_scores(layer, std::span<const float>(floats), scored);
            } else {
                fast.register_scores(layer, std::span<const double>(scores), scored);
            }
            slow.add(layer, scores, scored);
            ASSERT_TRUE(std::ranges::equal(fast.history(layer).scores(), slow.scores(layer)));
            ASSERT_TRUE(std::ranges::equal(fast.history(layer).reach(), slow.counters(layer)));
        }
        if (seen < s.prompt) {
            continue;
        }
        std::size_t num_evicted = 0;
        for (std::size_t layer = 0; layer < s.layers; ++layer) {
            ASSERT_EQ(fast.needs_eviction(layer), slow.triggered(layer));
            const bool triggered = slow.triggered(layer);
            const reference::counts expected = slow.evict(layer);
            ASSERT_TRUE(std::ranges::equal(fast.evict(layer), expected))
                << "layer " << layer << " after " << seen << " tokens";
            if (triggered) {
                expect_consequences(c, slow, expected, cached, met);
            }
            num_evicted = layer == 0 ? expected.size() : num_evicted;
            ASSERT_EQ(expected.size(), num_evicted); // as many in every layer
        }
        cached -= num_evicted * c.block_size;
    }
}

TEST(OpenvinoCompatAgainstReference, AThousandSequences) {
    situations met;
    for (std::uint64_t seed = 0; seed < 1000; ++seed) {
        dice roll(seed);
        const sequence s = draw(roll);
        run(s, roll, met);
        if (testing::Test::HasFatalFailure()) {
            FAIL() << "seed " << seed << ", block_size " << s.settings.block_size << ", anchor "
                   << name_of(s.settings.anchor) << ", budget "
                   << s.settings.num_representative_blocks;
        }
    }
    EXPECT_GT(met.too_few, 50U);
    EXPECT_GT(met.all_stay, 50U);
    EXPECT_GT(met.farthest_goes, 50U);
    EXPECT_GT(met.nearest_stay, 50U);
    EXPECT_GT(met.spread, 50U);
    EXPECT_GT(met.without, 50U);
}

TEST(OpenvinoCompatAgainstReference, BlocksOfEverySize) {
    situations met;
    for (const std::size_t block_size : std::initializer_list<std::size_t>{
             1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 200, 255, 256, 300}) {
        for (const anchor_kind kind : kinds) {
            dice roll(block_size);
            sequence s = draw(roll);
            s.settings = {.block_size = block_size,
                          .num_sink_tokens = block_size,
                          .num_recent_tokens = block_size,
                          .max_cache_tokens = 4 * block_size,
                          .num_representative_blocks = 3,
                          .anchor = kind};
            s.layers = 2;
            s.prompt = 20 * block_size + 5;
            s.chunk = s.prompt;
            s.decoded = 3;
            run(s, roll, met);
            ASSERT_FALSE(testing::Test::HasFatalFailure()) << block_size << " " << name_of(kind);
        }
    }
}

} // namespace
} // namespace kvcrush
