// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/attend/attend.hpp>
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/codec/codebook_row.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/hadamard.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/mean_centred.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q5_1.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/codec/turbo_quant.hpp>

#include "stored_cache.hpp"
#include "unit/simd/every_rung.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <thread>
#include <vector>

namespace kvcrush {
namespace {

using reference::expect_exact;
using reference::placing;
using reference::stored_cache;

constexpr dense_codec<float> f32_rows{};
constexpr dense_codec<f16> f16_rows{};
constexpr dense_codec<bf16> bf16_rows{};
constexpr int8_row_codec int8_rows{};

class Attend : public reference::every_rung {};

TEST_P(Attend, GivesTheAttentionOverTheDecodedRowsOfEveryGroupSizeAndDim) {
    for (const std::size_t group : std::initializer_list<std::size_t>{1, 3, 4, 7, 8}) {
        for (const std::size_t dim : std::initializer_list<std::size_t>{64, 80, 96, 128, 256}) {
            stored_cache cache(dim, dim, rung());
            cache.begin_head();
            cache.add_segment(f32_rows, f32_rows, 4);
            cache.add_segment(int8_rows, f16_rows, 71);
            cache.add_segment(f16_rows, int8_rows, 5);
            cache.add_segment(bf16_rows, bf16_rows, 64);
            expect_exact(cache,
                         group,
                         1,
                         "group of " + std::to_string(group) + ", dim " + std::to_string(dim));
        }
    }
}

TEST_P(Attend, TakesAnyNumberOfChannelsAndReadsNothingBehindThem) {
    for (const std::size_t dim : std::initializer_list<std::size_t>{
             1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 63, 65, 97, 129}) {
        stored_cache cache(dim, 2 * dim + 1, rung());
        for (const std::size_t rows : std::initializer_list<std::size_t>{1, 2, 3, 5, 63, 66}) {
            cache.begin_head();
            cache.add_segment(f32_rows, f16_rows, rows);
            cache.begin_head();
            cache.add_segment(bf16_rows, int8_rows, rows);
            cache.begin_head();
            cache.add_segment(int8_rows, f32_rows, rows);
            cache.begin_head();
            cache.add_segment(f16_rows, bf16_rows, rows);
        }
        expect_exact(cache, cache.rows().size(), 1, "dim " + std::to_string(dim));
        expect_exact(cache, 5 * cache.rows().size(), 1, "groups of 5, dim " + std::to_string(dim));
    }
}

TEST_P(Attend, TakesHeadsOfDifferentLengthsAndEmptyOnes) {
    stored_cache cache(64, 80, rung());
    for (const std::size_t rows :
         std::initializer_list<std::size_t>{0, 1, 2, 63, 64, 65, 1023, 1024, 1025, 2500}) {
        cache.begin_head();
        cache.add_segment(f16_rows, int8_rows, 0);
        cache.add_segment(int8_rows, f16_rows, rows);
        cache.add_segment(f32_rows, f32_rows, 0);
    }
    cache.begin_head(); // no segment at all
    expect_exact(cache, 3 * cache.rows().size(), 1, "ragged");
}

TEST_P(Attend, SeveralQueriesSeeTheRowsUpToTheirOwn) {
    for (const std::size_t queries : std::initializer_list<std::size_t>{2, 5, 64, 70}) {
        stored_cache cache(64, 64, rung());
        for (const std::size_t rows : std::initializer_list<std::size_t>{1, 3, 65, 130}) {
            cache.begin_head();
            cache.add_segment(int8_rows, int8_rows, rows);
            cache.add_segment(f16_rows, f16_rows, 2);
        }
        expect_exact(cache, 3 * cache.rows().size(), queries, std::to_string(queries) + " queries");
    }
}

TEST_P(Attend, FollowsStridesIndicesAndPages) {
    for (const placing place : {placing::strided, placing::selected, placing::paged}) {
        stored_cache cache(80, 64, rung());
        for (const std::size_t rows : std::initializer_list<std::size_t>{1, 7, 64, 131}) {
            cache.begin_head();
            cache.add_segment(int8_rows, f16_rows, rows, place);
            cache.add_segment(f32_rows, int8_rows, rows + 1, place);
        }
        expect_exact(cache, 4 * cache.rows().size(), 1, "placing");
    }
}

TEST_P(Attend, AddsTheMeanOfKeysToTheirLogits) {
    stored_cache cache(128, 64, rung());
    cache.begin_head();
    cache.add_segment(f32_rows, f32_rows, 70, placing::in_a_row, false);
    cache.add_segment(int8_rows, f32_rows, 70, placing::in_a_row, true);
    cache.add_segment(f16_rows, f32_rows, 3, placing::in_a_row, true);
    expect_exact(cache, 4, 3, "with means", 2e-5);
}

TEST_P(Attend, HugeLogitsNeitherOverflowNorTurnIntoNan) {
    stored_cache cache(64, 64, rung());
    cache.begin_head();
    cache.add_segment(f32_rows, f32_rows, 100, placing::in_a_row, false, 1.0F);
    cache.add_segment(f32_rows, f32_rows, 100, placing::in_a_row, false, 1e4F);
    cache.add_segment(f32_rows, f32_rows, 100, placing::in_a_row, false, 1.0F);
    const std::vector<float> queries = reference::normal_floats(4 * 64, 5);
    const auto got = reference::run_attend(cache, queries, 4, 1);
    const auto expected =
        reference::attention_over_rows(queries, cache.rows(), 4, 1, 64, 64, 0.125);
    for (std::size_t i = 0; i < got.output.size(); ++i) {
        EXPECT_NEAR(static_cast<double>(got.output[i]), expected.output[i], 1e-2);
    }
    for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_NEAR(static_cast<double>(got.log_sum_exp[i]),
                    expected.log_sum_exp[i],
                    1e-5 * expected.log_sum_exp[i]);
        EXPECT_GT(expected.log_sum_exp[i], 1e3);
    }
    for (const float weight : got.weights) {
        EXPECT_TRUE(std::isfinite(weight));
    }
}

TEST_P(Attend, EqualKeysGiveTheMeanOfTheValues) {
    std::vector<float> keys(3 * 8, 0.5F);
    std::vector<float> values(3 * 2);
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(i);
    }
    const row_kernels table = kernels_of(f32_rows, rung());
    const attend_segment segment{
        .count = 3,
        .keys = {.data = reinterpret_cast<const std::byte*>(keys.data()), .stride = 8 * 4},
        .key_kernels = &table,
        .values = {.data = reinterpret_cast<const std::byte*>(values.data()), .stride = 2 * 4},
        .value_kernels = &table};
    const attend_head head(&segment, 1);
    const std::vector<float> query(8, 1.0F);
    const query_view queries(query, 1, 1, 8);
    std::vector<float> output(2);
    std::vector<float> memory(attend_workspace(queries, {&head, 1}, 2));
    ASSERT_EQ(attend(queries, {&head, 1}, 2, output, memory, {}, serial_executor{}, rung()),
              attend_status::done);
    EXPECT_FLOAT_EQ(output[0], 2.0F);
    EXPECT_FLOAT_EQ(output[1], 3.0F);
}

TEST_P(Attend, TakesEncodedBlocksAndRotationsOfThem) {
    constexpr q8_0_codec q8_0{};
    constexpr q4_0_codec q4_0{};
    constexpr q5_1_codec q5_1{};
    const hadamard_codec<q4_0_codec> rotated{};
    for (const std::size_t dim : std::initializer_list<std::size_t>{32, 64, 96, 128, 256}) {
        stored_cache cache(dim, 64, rung());
        for (const std::size_t rows : std::initializer_list<std::size_t>{1, 6, 65, 130}) {
            cache.begin_head();
            cache.add_segment(q8_0, q4_0, rows);
            cache.add_segment(q4_0, q8_0, rows, placing::selected);
            cache.add_segment(q5_1, q5_1, 3, placing::paged);
        }
        expect_exact(cache, 4 * cache.rows().size(), 1, "blocks, dim " + std::to_string(dim));
        if (dim % 64 == 0) {
            stored_cache turned(dim, dim, rung());
            turned.begin_head();
            turned.add_segment(rotated, rotated, 70, placing::in_a_row, true);
            turned.add_segment(f32_rows, f32_rows, 7);
            expect_exact(turned, 3, 2, "rotated, dim " + std::to_string(dim), 3e-5);
        }
    }
}

constexpr codebook_row_codec codebook(std::size_t bits) { return {.bits = bits}; }

TEST_P(Attend, TakesRowsOfCodebooks) {
    const codebook_row_codec rows_of_2 = codebook(2);
    const codebook_row_codec rows_of_3 = codebook(3);
    const codebook_row_codec rows_of_4 = codebook(4);
    const codebook_row_codec rows_of_5 = codebook(5);
    for (const std::size_t dim : std::initializer_list<std::size_t>{
             8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 120, 128, 256}) {
        stored_cache cache(dim, 144 - dim % 72, rung());
        for (const std::size_t rows : std::initializer_list<std::size_t>{1, 6, 65, 130}) {
            cache.begin_head();
            cache.add_segment(rows_of_2, rows_of_4, rows);
            cache.add_segment(rows_of_3, rows_of_2, rows, placing::selected);
            cache.begin_head();
            cache.add_segment(rows_of_4, rows_of_3, rows, placing::paged);
            cache.add_segment(rows_of_5, rows_of_5, rows, placing::paged);
        }
        expect_exact(cache, 3 * cache.rows().size(), 1, "dim " + std::to_string(dim));
    }
    // Rows that end within a group of eight channels.
    for (const std::size_t dim : std::initializer_list<std::size_t>{2, 4, 20, 36, 60, 76}) {
        stored_cache cache(dim, dim, rung());
        cache.begin_head();
        cache.add_segment(rows_of_4, rows_of_4, 67);
        if (dim % 4 == 0) {
            cache.add_segment(rows_of_2, rows_of_2, 3);
        }
        expect_exact(cache, 5, 1, "dim " + std::to_string(dim));
    }
}

TEST_P(Attend, TakesTurnedAndCentredRowsOfCodebooks) {
    const mean_centred_codec<turbo_quant_codec> keys{{.bits = 4}};
    const turbo_quant_codec values{.bits = 3};
    for (const std::size_t dim : std::initializer_list<std::size_t>{64, 80, 128}) {
        stored_cache cache(dim, dim, rung());
        cache.begin_head();
        cache.add_segment(f32_rows, f32_rows, 4);
        cache.add_segment(keys, values, 150, placing::in_a_row, true);
        cache.add_segment(f16_rows, f16_rows, 33);
        expect_exact(cache, 4, 2, "dim " + std::to_string(dim), 3e-5);
    }
}

/// The largest difference of outputs, over the largest sum of absolute terms among the channels of a query: weights have
/// the same error for all of them.
double integer_error(const stored_cache& cache, std::size_t num_q_heads, std::size_t num_queries) {
    const std::vector<float> queries =
        reference::normal_floats(num_q_heads * num_queries * cache.key_dim(), 17);
    const auto got = reference::run_attend(cache, queries, num_q_heads, num_queries);
    const auto expected =
        reference::attention_over_rows(queries,
                                       cache.rows(),
                                       num_q_heads,
                                       num_queries,
                                       cache.key_dim(),
                                       cache.value_dim(),
                                       1.0 / std::sqrt(static_cast<double>(cache.key_dim())));
    double error = 0.0;
    const std::size_t dim = cache.value_dim();
    for (std::size_t row = 0; row < got.output.size(); row += dim) {
        double largest = 1e-9;
        for (std::size_t i = row; i < row + dim; ++i) {
            largest = std::max(largest, expected.magnitude[i]);
        }
        for (std::size_t i = row; i < row + dim; ++i) {
            error = std::max(
                error, std::abs(static_cast<double>(got.output[i]) - expected.output[i]) / largest);
        }
    }
    return error;
}

template <typename K, typename V>
void expect_integers(const K& key_codec,
                     const V& value_codec,
                     std::size_t key_dim,
                     std::size_t value_dim,
                     simd::isa rung,
                     double bound) {
    for (const std::size_t group : std::initializer_list<std::size_t>{1, 3, 4, 7, 8}) {
        stored_cache cache(key_dim, value_dim, rung);
        for (const std::size_t rows : std::initializer_list<std::size_t>{1, 5, 64, 131}) {
            for (const placing place : {placing::in_a_row, placing::selected, placing::paged}) {
                cache.begin_head();
                cache.add_segment_of(key_codec,
                                     value_codec,
                                     rows,
                                     place,
                                     false,
                                     1.0F,
                                     kernels_of(key_codec, arithmetic::integer, rung),
                                     kernels_of(value_codec, arithmetic::integer, rung));
            }
        }
        EXPECT_LT(integer_error(cache, group * cache.rows().size(), 1), bound)
            << "group of " << group << ", dims " << key_dim << " and " << value_dim;
        EXPECT_LT(integer_error(cache, group * cache.rows().size(), 3), bound) << "three queries";
    }
}

TEST_P(Attend, IntegerArithmeticKeepsItsBounds) {
    // Logits: 16 bits are 1 / 65024 of the largest channel, about 3 sigma, times sum |k| / sqrt(dim), at most 13; weights:
    // 1 / 131070 of the largest. With 12 bits sixteen times that.
    constexpr double bits_16 = 4e-4;
    constexpr double bits_12 = 8e-3;
    for (const std::size_t dim : std::initializer_list<std::size_t>{64, 80, 96, 128, 256}) {
        expect_integers(int8_rows, int8_rows, dim, 80, rung(), bits_16);
    }
    expect_integers(int8_rows, int8_rows, 33, 49, rung(), bits_16);
    expect_integers(int8_rows, int8_rows, 528, 16, rung(), bits_16);
    for (const std::size_t dim : std::initializer_list<std::size_t>{32, 64, 96, 128, 256}) {
        expect_integers(q8_0_codec{}, q8_0_codec{}, dim, 64, rung(), bits_16);
        expect_integers(q4_0_codec{}, q4_0_codec{}, dim, 96, rung(), bits_12);
    }
    expect_integers(
        hadamard_codec<q4_0_codec>{}, hadamard_codec<q4_0_codec>{}, 128, 64, rung(), 2e-2);
}

TEST_P(Attend, IntegerArithmeticOfCodebooksKeepsItsBounds) {
    // Queries and centroids of 8 bits are 1 / 254 of the largest off at most, about 1 / 440 as a rule, so a logit of 64 to
    // 256 terms of either sign is about 1 / 100 off; weights at most 1 / 255 of the largest of a tile.
    constexpr double bits_8 = 4e-2;
    for (const std::size_t bits : std::initializer_list<std::size_t>{2, 3, 4, 5}) {
        for (const std::size_t dim : std::initializer_list<std::size_t>{64, 80, 128, 192, 256}) {
            expect_integers(codebook(bits), codebook(7 - bits), dim, 64, rung(), bits_8);
            expect_integers(codebook(bits), codebook(bits), 64, dim, rung(), bits_8);
        }
    }
    expect_integers(mean_centred_codec<turbo_quant_codec>{{.bits = 4}},
                    turbo_quant_codec{.bits = 3},
                    128,
                    64,
                    rung(),
                    bits_8);
    expect_integers(codebook(3), codebook(4), 24, 576, rung(), bits_8);
}

TEST_P(Attend, IntegerWeightsOfCodebooksKeepTheSumOfManySmallOnes) {
    // One row has nearly all the attention; the other weights are less than half a step.
    constexpr std::size_t dim = 64;
    const codebook_row_codec codec = codebook(4);
    const row_kernels table = kernels_of(codec, arithmetic::integer, rung());
    std::vector<std::byte> rows(64 * codec.group_bytes(dim));
    std::vector<float> row(dim, 1.0F);
    for (std::size_t i = 0; i < 64; ++i) {
        ASSERT_TRUE(codec.encode(
            row, dim, std::span(rows).subspan(i * codec.group_bytes(dim), codec.group_bytes(dim))));
    }
    tile_rows tile;
    locate_rows({.data = rows.data(), .stride = codec.group_bytes(dim)}, 1, 0, 64, tile);
    std::vector<float> weights(attend_tile, 0.0015F);
    weights[20] = 1.0F;
    std::vector<float> sums(dim);
    std::vector<float> scratch(kernel_scratch(1, dim));
    table.accumulate(table, tile, weights.data(), 1, dim, sums.data(), scratch.data());
    for (const float sum : sums) {
        EXPECT_NEAR(sum, 1.0F + 63.0F * 0.0015F, 2e-2F);
    }
}

/// Runs each task on a thread of its own, the last one first.
struct threads_backward {
    template <typename Task>
    void operator()(std::size_t num_tasks, const Task& task) const {
        std::vector<std::thread> threads;
        for (std::size_t i = num_tasks; i > 0; --i) {
            threads.emplace_back([&task, i] { task(i - 1); });
        }
        for (std::thread& one : threads) {
            one.join();
        }
    }
};

TEST_P(Attend, GivesTheSameBitsForAnyNumberOfLanesAndAnyExecutor) {
    stored_cache cache(64, 64, rung());
    for (const std::size_t rows : std::initializer_list<std::size_t>{10, 3000, 0, 1500}) {
        cache.begin_head();
        cache.add_segment(int8_rows, int8_rows, rows);
        cache.add_segment(f16_rows, f16_rows, rows / 2);
    }
    const std::vector<float> queries = reference::normal_floats(8 * 2 * 64, 77);
    const auto one = reference::run_attend(cache, queries, 8, 2);
    for (const std::size_t lanes : std::initializer_list<std::size_t>{2, 7}) {
        const auto serial = reference::run_attend(cache, queries, 8, 2, lanes);
        const auto spread =
            reference::run_attend(cache, queries, 8, 2, lanes, 0.0F, true, threads_backward{});
        EXPECT_EQ(serial.output, one.output);
        EXPECT_EQ(spread.output, one.output);
        EXPECT_EQ(spread.weights, one.weights);
        EXPECT_EQ(spread.log_sum_exp, one.log_sum_exp);
    }
    EXPECT_EQ(reference::run_attend(cache, queries, 8, 2, 1, 0.0F, false).output, one.output);
}

TEST_P(Attend, TakesTheScaleThatIsAskedFor) {
    stored_cache cache(64, 64, rung());
    cache.begin_head();
    cache.add_segment(f32_rows, f32_rows, 20);
    const std::vector<float> queries = reference::normal_floats(64, 3);
    const auto got = reference::run_attend(cache, queries, 1, 1, 1, 0.5F);
    const auto expected = reference::attention_over_rows(queries, cache.rows(), 1, 1, 64, 64, 0.5);
    for (std::size_t i = 0; i < 64; ++i) {
        EXPECT_NEAR(
            static_cast<double>(got.output[i]), expected.output[i], 1e-5 * expected.magnitude[i]);
    }
}

TEST(PartialAttention, PartsPutTogetherGiveTheWhole) {
    // spec 0, I4: logits (1, 3, 2, 0), values (1, 2, 3, 4), split in two.
    std::vector<float> memory(2 * partial_attention::size(1, 1));
    const partial_attention first({memory.data(), 3}, 1);
    const partial_attention second({memory.data() + 3, 3}, 1);
    first.clear();
    second.clear();
    first.largest[0] = 3.0F;
    first.sum[0] = 1.0F + std::exp(-2.0F);
    first.values[0] = 2.0F + std::exp(-2.0F);
    second.largest[0] = 2.0F;
    second.sum[0] = 1.0F + std::exp(-2.0F);
    second.values[0] = 3.0F + 4.0F * std::exp(-2.0F);
    first.merge(second);
    float output = 0.0F;
    first.output(0, {&output, 1});
    EXPECT_NEAR(output, 2.213855706F, 1e-6F);
    EXPECT_NEAR(first.log_sum_exp(0), 3.440189699F, 1e-6F);
}

TEST(PartialAttention, NothingSeenAddsNothing) {
    std::vector<float> memory(2 * partial_attention::size(1, 1));
    const partial_attention first({memory.data(), 3}, 1);
    const partial_attention second({memory.data() + 3, 3}, 1);
    first.clear();
    second.clear();
    first.merge(second);
    float output = 1.0F;
    first.output(0, {&output, 1});
    EXPECT_EQ(output, 0.0F);
    EXPECT_TRUE(std::isinf(first.log_sum_exp(0)));
}

KVCRUSH_ON_EVERY_RUNG(Attend);

} // namespace
} // namespace kvcrush
