// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/cache/compact.hpp>
#include <kvcrush/cache/position_map.hpp>
#include <kvcrush/cache/rerotate.hpp>
#include <kvcrush/core/compact_values.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/rope.hpp>

#include "../../reference/rope.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace kvcrush {
namespace {

std::vector<double> frequencies(std::size_t pairs, double base = 1e4) {
    std::vector<double> out(pairs);
    rope_frequencies(base, out);
    return out;
}

bool interleaved(rope_pairs pairs) { return pairs == rope_pairs::interleaved; }

/// Half the distance to the next number of a type, relative.
template <Element T>
constexpr double rounding() {
    return std::is_same_v<T, f16> ? 0x1p-11 : std::is_same_v<T, bf16> ? 0x1p-8 : 0x1p-24;
}

/// What a channel of a turned pair may be off by, from the header: 3.1 roundings of fp32 relative to |x| + |y|, and the
/// rounding to T, which is absolute below 2^-14 in f16.
template <Element T>
double turn_bound(double x, double y) {
    return 3.1 * 0x1p-24 * (std::abs(x) + std::abs(y)) + rounding<T>() * std::hypot(x, y) +
           (std::is_same_v<T, f16> ? 0x1p-25 : 1e-40);
}

std::size_t partner(std::size_t channel, std::size_t pairs, rope_pairs order) {
    return interleaved(order) ? channel ^ 1U : channel < pairs ? channel + pairs : channel - pairs;
}

class Rerotate : public testing::TestWithParam<rope_pairs> {};

// Known answer 12 of the specification.
TEST(RerotateKnownAnswers, GivesTheKeysOfPositionSevenAndThree) {
    struct answer {
        rope_pairs pairs;
        std::vector<double> at_7;
        std::vector<double> at_3;
    };
    const std::vector<answer> answers{{rope_pairs::half_split,
                                       {-1.217058, 1.715331, 2.918693, 4.130090},
                                       {-1.413353, 1.879118, -2.828857, 4.058191}},
                                      {rope_pairs::interleaved,
                                       {-0.560071, 2.164791, 2.712882, 4.200033},
                                       {-1.272233, -1.838865, 2.878668, 4.088187}}};
    for (const answer& known : answers) {
        std::vector<float> key{1, 2, 3, 4};
        const kv_view<float> kv(key, key, {1, 1, 4, 4});
        const rope_rotation rotation({.pairing = known.pairs}, 4);
        test::owned_scratch memory(rotation.scratch_bytes());
        const std::vector<token_index> positions{0, 7, 3};
        rotation.turn(kv,
                      0,
                      std::span(positions).subspan(0, 1),
                      std::span(positions).subspan(1, 1),
                      memory.get());
        for (std::size_t d = 0; d < 4; ++d) {
            EXPECT_NEAR(key[d], known.at_7[d], 2e-6);
        }
        rotation.turn(kv,
                      0,
                      std::span(positions).subspan(1, 1),
                      std::span(positions).subspan(2, 1),
                      memory.get());
        for (std::size_t d = 0; d < 4; ++d) {
            EXPECT_NEAR(key[d], known.at_3[d], 2e-6);
        }
    }
}

// Known answer 12: kept {0,1,4,5,8} turn by 0 0 -2 -2 -4.
TEST(RerotateKnownAnswers, KeptTokensTurnByTheTokensThatLeftBeforeThem) {
    std::vector<float> keys(9 * 2, 0.0F);
    for (std::size_t t = 0; t < 9; ++t) {
        keys[2 * t] = 1.0F;
    }
    const kv_view<float> kv(keys, keys, {1, 9, 2, 2});
    selection kept;
    kept.reserve(1, 5);
    for (const token_index token : {0U, 1U, 4U, 5U, 8U}) {
        kept.extend(1)[0] = token;
    }
    kept.end_head();
    const rope_rotation rotation({}, 2);
    test::owned_scratch memory(rotation.scratch_bytes());
    rerotate(kv, kept, next_position(key_positions::consecutive, 9, kept), rotation, memory.get());
    const std::vector<double> shifts{0, 0, -2, -2, -4};
    for (std::size_t i = 0; i < 5; ++i) {
        EXPECT_NEAR(keys[2 * i], std::cos(shifts[i]), 1e-7);
        EXPECT_NEAR(keys[2 * i + 1], std::sin(shifts[i]), 1e-7);
    }
}

// Known answer 12: six blocks of four tokens without the blocks 1 and 3 move by 4, 8 and 8 tokens.
TEST(RerotateKnownAnswers, BlocksTurnByTheBlocksThatLeftBeforeThem) {
    std::vector<float> keys(24 * 2, 0.0F);
    for (std::size_t t = 0; t < 24; ++t) {
        keys[2 * t] = 1.0F;
    }
    const kv_view<float> kv(keys, keys, {1, 24, 2, 2});
    selection kept;
    kept.reserve(1, 16);
    kept.extend_range(0, 4);
    kept.extend_range(8, 12);
    kept.extend_range(16, 24);
    kept.end_head();
    const rope_rotation rotation({}, 2);
    test::owned_scratch memory(rotation.scratch_bytes());
    rerotate(kv, kept, 16, rotation, memory.get());
    const std::vector<double> shifts{0, -4, -8, -8};
    for (std::size_t t = 0; t < 16; ++t) {
        EXPECT_NEAR(keys[2 * t], std::cos(shifts[t / 4]), 1e-7);
        EXPECT_NEAR(keys[2 * t + 1], std::sin(shifts[t / 4]), 1e-7);
    }
}

TEST(RopeFrequencies, AreThePowersOfTheBase) {
    const std::vector<double> got = frequencies(4, 5e5);
    for (std::size_t j = 0; j < 4; ++j) {
        EXPECT_DOUBLE_EQ(got[j], std::pow(5e5, -2.0 * static_cast<double>(j) / 8.0));
    }
}

/// Rotates every key of a cache from positions to positions, and compares with the reference in double.
template <Element T>
void expect_turned(std::size_t key_dim, std::size_t pairs, std::size_t tokens, rope_pairs order) {
    const kv_shape shape{2, tokens, key_dim, 3};
    const std::vector<double> steps = frequencies(pairs);
    const rope_rotation rotation({.pairing = order, .frequencies = steps}, key_dim);
    test::with_every_layout<T>(shape, [&](const auto& kv) {
        test::owned_scratch memory(rotation.scratch_bytes());
        for (std::size_t head = 0; head < 2; ++head) {
            std::vector<token_index> from(tokens);
            std::vector<token_index> to(tokens);
            for (std::size_t t = 0; t < tokens; ++t) { // runs of one shift, jumps, both directions
                const std::uint64_t jump = random_bits(head, tokens, t / 3);
                from[t] = static_cast<token_index>(jump % 200000 + t % 3);
                to[t] = jump % 5 == 0 ? from[t]
                                      : static_cast<token_index>((jump >> 32) % 200000 + t % 3);
            }
            rotation.turn(kv, head, from, to, memory.get());
            for (std::size_t t = 0; t < tokens; ++t) {
                std::vector<double> key(key_dim);
                for (std::size_t d = 0; d < key_dim; ++d) {
                    key[d] = test::marked(false, head, t, d);
                }
                const std::vector<double> expected = reference::rope(
                    key, double{1.0} * to[t] - double{1.0} * from[t], steps, interleaved(order));
                for (std::size_t d = 0; d < key_dim; ++d) {
                    const double got = to_float(kv.key(head, t)[d]);
                    if (d >= 2 * pairs || from[t] == to[t]) {
                        ASSERT_EQ(got, key[d]); // not touched
                    } else {
                        ASSERT_NEAR(
                            got, expected[d], turn_bound<T>(key[d], key[partner(d, pairs, order)]))
                            << key_dim << " channels, " << pairs << " pairs, token " << t
                            << ", channel " << d;
                    }
                }
                for (std::size_t d = 0; d < 3; ++d) {
                    ASSERT_EQ(to_float(kv.value(head, t)[d]), test::marked(true, head, t, d));
                }
            }
        }
    });
}

TEST_P(Rerotate, EqualsTheReferenceInEveryLayoutAndType) {
    for (const std::size_t tokens : std::initializer_list<std::size_t>{0, 1, 63, 64, 65}) {
        expect_turned<float>(8, 4, tokens, GetParam());
        expect_turned<f16>(8, 4, tokens, GetParam());
        expect_turned<bf16>(8, 4, tokens, GetParam());
    }
    for (const std::size_t dim : std::initializer_list<std::size_t>{64, 80, 96, 128, 256}) {
        expect_turned<float>(dim, dim / 2, 10, GetParam());
        expect_turned<f16>(dim, dim / 2, 10, GetParam());
        expect_turned<bf16>(dim, dim / 2, 10, GetParam());
    }
}

TEST_P(Rerotate, ChannelsBehindTheRotaryOnesAreLeftAlone) {
    for (const std::size_t pairs : std::initializer_list<std::size_t>{0, 1, 15, 16, 17, 33}) {
        for (const std::size_t rest : std::initializer_list<std::size_t>{0, 1, 2, 31}) {
            if (pairs == 0 && rest > 1) {
                continue; // without frequencies all channels turn
            }
            expect_turned<float>(2 * pairs + rest, pairs, 7, GetParam());
            expect_turned<f16>(2 * pairs + rest, pairs, 7, GetParam());
        }
    }
}

TEST_P(Rerotate, AnglesStayExactOverManyRows) {
    constexpr std::size_t tokens = 5000;
    std::vector<float> keys(tokens * 2);
    for (std::size_t t = 0; t < tokens; ++t) {
        keys[2 * t] = 1.0F;
    }
    const kv_view<float> kv(keys, keys, {1, tokens, 2, 2});
    const std::vector<double> steps{1.0};
    const rope_rotation rotation({.pairing = GetParam(), .frequencies = steps}, 2);
    test::owned_scratch memory(rotation.scratch_bytes());
    std::vector<token_index> positions(tokens);
    for (std::size_t t = 0; t < tokens; ++t) {
        positions[t] = static_cast<token_index>(t * 37 + t * t % 11 + 4000000000U);
    }
    const std::vector<token_index> from = positions;
    rerotate(kv, 0, std::span(positions), tokens, rotation, memory.get());
    for (std::size_t t = 0; t < tokens; ++t) {
        ASSERT_EQ(positions[t], t);
        const double angle = static_cast<double>(t) - static_cast<double>(from[t]);
        ASSERT_NEAR(keys[2 * t], std::cos(angle), 0x1p-24) << t;
        ASSERT_NEAR(keys[2 * t + 1], std::sin(angle), 0x1p-24) << t;
    }
}

TEST_P(Rerotate, ThereAndBackIsTheSameKey) {
    constexpr std::size_t dim = 64;
    constexpr std::size_t tokens = 40;
    const std::vector<double> steps = frequencies(dim / 2);
    const rope_rotation rotation({.pairing = GetParam(), .frequencies = steps}, dim);
    test::with_every_layout<float>(kv_shape{1, tokens, dim, 1}, [&](const auto& kv) {
        test::owned_scratch memory(rotation.scratch_bytes());
        std::vector<token_index> from(tokens);
        std::vector<token_index> to(tokens);
        for (std::size_t t = 0; t < tokens; ++t) {
            from[t] = static_cast<token_index>(3 * t + 1000);
            to[t] = static_cast<token_index>(t);
        }
        rotation.turn(kv, 0, from, to, memory.get());
        rotation.turn(kv, 0, to, from, memory.get());
        for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t d = 0; d < dim; ++d) {
                const double x = test::marked(false, 0, t, d);
                const double y = test::marked(false, 0, t, partner(d, dim / 2, GetParam()));
                // Errors of both channels of the first turn pass through the second one: |cos| + |sin| <= 1.5.
                ASSERT_NEAR(to_float(kv.key(0, t)[d]), x, 3.0 * turn_bound<float>(x, y));
            }
        }
    });
}

/// Keys rotated for all positions, compressed and moved, are those rotated for the new positions from the start.
template <Element T>
void expect_as_from_scratch(rope_pairs order) {
    constexpr std::size_t dim = 16;
    constexpr std::size_t tokens = 200;
    constexpr std::size_t heads = 3;
    const std::vector<double> steps = frequencies(dim / 2);
    const rope_rotation rotation({.pairing = order, .frequencies = steps}, dim);
    test::owned_scratch memory(rotation.scratch_bytes());
    const auto key_at = [&](std::size_t head, std::size_t token, double position) {
        std::vector<double> key(dim);
        for (std::size_t d = 0; d < dim; ++d) {
            key[d] = test::marked(false, head, token, d);
        }
        return reference::rope(key, position, steps, interleaved(order));
    };
    test::with_every_layout<T>(kv_shape{heads, tokens, dim, 2}, [&](const auto& kv) {
        selection kept;
        kept.reserve(heads, heads * tokens);
        for (std::size_t head = 0; head < heads; ++head) {
            for (std::size_t t = 0; t < tokens; ++t) {
                const std::vector<double> key = key_at(head, t, static_cast<double>(t));
                for (std::size_t d = 0; d < dim; ++d) {
                    kv.key(head, t)[d] = from_float<T>(static_cast<float>(key[d]));
                }
                if (random_bits(7, head, t) % (head + 2) == 0) {
                    kept.extend(1)[0] = static_cast<token_index>(t);
                }
            }
            kept.end_head();
        }
        compact(kv, kept);
        const std::size_t next = next_position(key_positions::consecutive, tokens, kept);
        EXPECT_EQ(next, kept.longest());
        rerotate(kv, kept, next, rotation, memory.get());
        for (std::size_t head = 0; head < heads; ++head) {
            const auto list = kept.kept(head);
            for (std::size_t i = 0; i < list.size(); ++i) {
                const std::vector<double> expected =
                    key_at(head, list[i], static_cast<double>(next - list.size() + i));
                for (std::size_t d = 0; d < dim; ++d) {
                    const double length =
                        std::hypot(expected[d], expected[partner(d, dim / 2, order)]);
                    // Rounded when stored (both channels, |cos| + |sin| <= 1.5), turned, and rounded again.
                    const double bound = 1.5 * (rounding<T>() + 0x1p-24) * length +
                                         3.1 * 0x1p-24 * 1.5 * length + rounding<T>() * length;
                    ASSERT_NEAR(to_float(kv.key(head, i)[d]), expected[d], bound + 0x1p-23);
                }
            }
        }
    });
}

TEST_P(Rerotate, CompactedKeysAreThoseRotatedFromScratch) {
    expect_as_from_scratch<float>(GetParam());
    expect_as_from_scratch<f16>(GetParam());
    expect_as_from_scratch<bf16>(GetParam());
}

TEST_P(Rerotate, LogitsDoNotChangeWhenQueryAndKeysMoveTogether) {
    constexpr std::size_t dim = 32;
    constexpr std::size_t tokens = 50;
    constexpr token_index shift = 12345;
    const std::vector<double> steps = frequencies(dim / 2);
    const rope_rotation rotation({.pairing = GetParam(), .frequencies = steps}, dim);
    test::owned_scratch memory(rotation.scratch_bytes());
    test::with_every_layout<float>(kv_shape{1, tokens, dim, 1}, [&](const auto& kv) {
        std::vector<double> query(dim);
        std::vector<token_index> from(tokens);
        std::vector<token_index> to(tokens);
        std::vector<double> logits(tokens, 0.0);
        std::vector<double> bounds(tokens, 0.0);
        for (std::size_t d = 0; d < dim; ++d) {
            query[d] = random_unit(3, 0, d) - 0.5F;
        }
        const std::vector<double> moved =
            reference::rope(query, -double{shift}, steps, interleaved(GetParam()));
        for (std::size_t t = 0; t < tokens; ++t) {
            from[t] = static_cast<token_index>(shift + 2 * t);
            to[t] = static_cast<token_index>(2 * t);
            for (std::size_t d = 0; d < dim; ++d) {
                const double key = test::marked(false, 0, t, d);
                logits[t] += query[d] * key;
                bounds[t] += std::abs(moved[d]) *
                             turn_bound<float>(
                                 key, test::marked(false, 0, t, partner(d, dim / 2, GetParam())));
            }
        }
        rotation.turn(kv, 0, from, to, memory.get());
        for (std::size_t t = 0; t < tokens; ++t) {
            double logit = 0.0;
            for (std::size_t d = 0; d < dim; ++d) {
                logit += moved[d] * static_cast<double>(to_float(kv.key(0, t)[d]));
            }
            EXPECT_NEAR(logit, logits[t], bounds[t] + 1e-12);
        }
    });
}

TEST_P(Rerotate, PositionsMayBeKeptThroughSeveralCompressions) {
    constexpr std::size_t dim = 4;
    std::vector<float> keys;
    for (std::size_t t = 0; t < 12; ++t) {
        for (std::size_t d = 0; d < dim; ++d) {
            keys.push_back(test::marked(false, 0, t, d));
        }
    }
    std::vector<float> values(12);
    const kv_view<float> kv(keys, values, {1, 12, dim, 1});
    const std::vector<double> steps = frequencies(dim / 2);
    const rope_rotation rotation({.pairing = GetParam(), .frequencies = steps}, dim);
    test::owned_scratch memory(rotation.scratch_bytes());
    std::vector<token_index> positions{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    std::vector<std::size_t> tokens{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    for (const std::vector<token_index>& list :
         {std::vector<token_index>{0, 2, 3, 6, 7, 9, 11}, std::vector<token_index>{1, 4, 6}}) {
        selection kept;
        kept.reserve(1, list.size());
        std::copy(list.begin(), list.end(), kept.extend(list.size()).begin());
        kept.end_head();
        compact(kv, kept);
        compact_values(std::span(positions), kept.kept(0));
        compact_values(std::span(tokens), kept.kept(0));
        positions.resize(list.size());
        rerotate(kv, 0, std::span(positions), list.size() + 5, rotation, memory.get());
    }
    ASSERT_EQ(positions, (std::vector<token_index>{5, 6, 7}));
    for (std::size_t i = 0; i < 3; ++i) {
        std::vector<double> key(dim);
        for (std::size_t d = 0; d < dim; ++d) {
            key[d] = test::marked(false, 0, tokens[i], d);
        }
        const std::vector<double> expected =
            reference::rope(key,
                            static_cast<double>(positions[i]) - static_cast<double>(tokens[i]),
                            steps,
                            interleaved(GetParam()));
        for (std::size_t d = 0; d < dim; ++d) {
            EXPECT_NEAR(kv.key(0, i)[d], expected[d], 5e-6);
        }
    }
}

TEST_P(Rerotate, NanAndInfinityStayInTheirPair) {
    std::vector<float> keys{std::numeric_limits<float>::quiet_NaN(), 1, 2, 3, 4, 5, 6, 7};
    keys[interleaved(GetParam()) ? 1 : 4] = std::numeric_limits<float>::infinity();
    const kv_view<float> kv(keys, keys, {1, 1, 8, 8});
    const rope_rotation rotation({.pairing = GetParam()}, 8);
    test::owned_scratch memory(rotation.scratch_bytes());
    const std::vector<token_index> positions{3, 1};
    rotation.turn(kv, 0, std::span(positions).first(1), std::span(positions).last(1), memory.get());
    std::size_t finite = 0;
    for (const float channel : keys) {
        finite += std::isfinite(channel) ? 1U : 0U;
    }
    EXPECT_EQ(finite, 6U);
}

INSTANTIATE_TEST_SUITE_P(pairs,
                         Rerotate,
                         testing::Values(rope_pairs::half_split, rope_pairs::interleaved),
                         [](const auto& order) {
                             return interleaved(order.param) ? "interleaved" : "half_split";
                         });

TEST(NextPosition, IsTheTokensSeenUnlessKeysMoved) {
    selection kept;
    kept.reserve(2, 5);
    kept.extend_range(1, 3);
    kept.end_head();
    kept.extend_range(0, 3);
    kept.end_head();
    EXPECT_EQ(next_position(key_positions::original, 10, kept), 10U);
    EXPECT_EQ(next_position(key_positions::consecutive, 10, kept), 3U);
    EXPECT_EQ(next_position(key_positions::consecutive, 0, selection{}), 0U);
}

TEST(RopeRotation, RefusesMorePairsThanChannels) {
    const std::vector<double> four = frequencies(4);
    EXPECT_THROW(rope_rotation({.frequencies = four}, 7), std::invalid_argument);
    EXPECT_NO_THROW(rope_rotation({}, 7)); // the last channel stays
    EXPECT_THROW(rope_rotation({.rotary_dim = 8}, 7), std::invalid_argument);
    EXPECT_THROW(rope_rotation({.theta = -1.0}, 8), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
