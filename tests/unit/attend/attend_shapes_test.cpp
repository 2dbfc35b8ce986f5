// SPDX-License-Identifier: Apache-2.0
/// Any number of query heads and queries, outputs in any order, and arguments that do not fit together.
#include <kvcrush/attend/attend.hpp>
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/hadamard.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/kivi.hpp>
#include <kvcrush/codec/q4_0.hpp>

#include "stored_cache.hpp"
#include "unit/simd/every_rung.hpp"
#include "unit/simd/fp_exceptions.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <limits>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

using reference::attended;
using reference::expect_exact;
using reference::normal_floats;
using reference::placing;
using reference::run_attend;
using reference::stored_cache;

constexpr dense_codec<float> f32_rows{};
constexpr dense_codec<f16> f16_rows{};
constexpr int8_row_codec int8_rows{};

class AttendShapes : public reference::every_rung {};

TEST_P(AttendShapes, TakeAnyNumberOfQueryHeadsPerKvHead) {
    for (const std::size_t group : std::initializer_list<std::size_t>{64, 65, 71, 96, 128, 200}) {
        stored_cache cache(16, 24, rung());
        cache.begin_head();
        cache.add_segment(int8_rows, int8_rows, 70);
        cache.add_segment(f16_rows, f16_rows, 3, placing::in_a_row, true);
        cache.begin_head();
        cache.add_segment(f32_rows, f32_rows, 130);
        for (const std::size_t queries : std::initializer_list<std::size_t>{1, 2, 5, 33}) {
            const std::size_t lanes = queries;
            expect_exact(cache,
                         2 * group,
                         queries,
                         std::to_string(group) + " heads, " + std::to_string(queries) +
                             " queries and lanes",
                         2e-5,
                         1.0F,
                         lanes);
        }
    }
}

TEST_P(AttendShapes, TakeBlocksOfManyQueries) {
    const hadamard_codec<q4_0_codec> rotated{};
    const kivi_key_codec kivi{};
    for (const std::size_t queries : std::initializer_list<std::size_t>{31, 32, 63, 100, 257}) {
        stored_cache cache(64, 96, rung());
        cache.begin_head();
        cache.add_segment(f32_rows, f32_rows, 4);
        cache.add_segment(rotated, q4_0_codec{}, 150, placing::selected, true);
        cache.add_segment(kivi, int8_rows, 96, placing::paged);
        cache.add_segment(f16_rows, f16_rows, 77);
        cache.begin_head(); // most queries see nothing
        cache.add_segment(f16_rows, f32_rows, 9);
        cache.begin_head();
        for (const std::size_t lanes : std::initializer_list<std::size_t>{1, 2, 5}) {
            expect_exact(cache,
                         3 * cache.rows().size(),
                         queries,
                         std::to_string(queries) + " queries",
                         3e-5,
                         1.0F,
                         lanes);
        }
    }
}

TEST_P(AttendShapes, GiveTheSameBitsForManyQueriesAtAnyNumberOfLanes) {
    stored_cache cache(48, 48, rung());
    for (const std::size_t rows : std::initializer_list<std::size_t>{10, 1300}) {
        cache.begin_head();
        cache.add_segment(int8_rows, int8_rows, rows);
        cache.add_segment(f16_rows, f16_rows, 70);
    }
    const std::vector<float> queries = normal_floats(4 * 130 * 48, 78);
    const attended one = run_attend(cache, queries, 4, 130);
    for (const std::size_t lanes : std::initializer_list<std::size_t>{2, 7}) {
        const attended several = run_attend(cache, queries, 4, 130, lanes);
        EXPECT_EQ(several.output, one.output);
        EXPECT_EQ(several.weights, one.weights);
        EXPECT_EQ(several.log_sum_exp, one.log_sum_exp);
    }
}

TEST_P(AttendShapes, RaiseNoFloatingPointExceptions) {
    for (const float key_size : {1.0F, 1e3F, 1e15F}) {
        stored_cache cache(32, 48, rung());
        cache.begin_head();
        cache.add_segment(f32_rows, f16_rows, 67, placing::in_a_row, true, key_size);
        cache.add_segment(int8_rows, int8_rows, 130, placing::in_a_row, false, key_size);
        cache.begin_head();
        cache.add_segment(f32_rows, f32_rows, 3, placing::in_a_row, false, key_size);
        for (const std::size_t queries : std::initializer_list<std::size_t>{1, 7, 140}) {
            const std::vector<float> rows = normal_floats(6 * queries * 32, 8);
            EXPECT_EQ(reference::raised_exceptions(
                          [&] { static_cast<void>(run_attend(cache, rows, 6, queries)); }),
                      0)
                << queries << " queries, keys of " << key_size;
        }
    }
}

/// 9 rows of one head and none of another, 3 query heads each.
struct AttendArguments : testing::Test {
    static constexpr std::size_t dim = 8;
    static constexpr std::size_t num_q_heads = 6;

    AttendArguments() : cache(dim, dim, simd::best()) {
        cache.begin_head();
        cache.add_segment(f32_rows, f32_rows, 9);
        cache.begin_head();
        heads = cache.heads();
    }

    [[nodiscard]] query_view view(std::size_t num_queries,
                                  std::size_t num_heads = num_q_heads) const {
        return {queries, num_heads, num_queries, dim};
    }
    attend_status
    call(const query_view& asked, std::span<float> output, const attend_options& how = {}) {
        memory.resize(attend_workspace(asked, heads, dim, how));
        return attend(asked, heads, dim, output, memory, how);
    }

    stored_cache cache;
    std::vector<attend_head> heads;
    std::vector<float> queries = normal_floats(num_q_heads * 40 * dim, 5);
    std::vector<float> memory;
};

TEST_F(AttendArguments, OutputLiesWhereItsStridesSay) {
    for (const std::size_t num_queries : std::initializer_list<std::size_t>{1, 3, 40}) {
        std::vector<float> plain(num_q_heads * num_queries * dim);
        ASSERT_EQ(call(view(num_queries), plain), attend_status::done);
        std::vector<float> by_token(plain.size());
        ASSERT_EQ(call(view(num_queries), by_token, {.output = {dim, num_q_heads * dim, 1}}),
                  attend_status::done);
        // Channels are furthest apart, and there is a gap between heads.
        std::vector<float> turned(dim * num_queries * 7, -1.0F);
        ASSERT_EQ(call(view(num_queries), turned, {.output = {1, 7, 7 * num_queries}}),
                  attend_status::done);
        for (std::size_t h = 0; h < num_q_heads; ++h) {
            for (std::size_t q = 0; q < num_queries; ++q) {
                for (std::size_t c = 0; c < dim; ++c) {
                    const float expected = plain[(h * num_queries + q) * dim + c];
                    ASSERT_EQ(by_token[(q * num_q_heads + h) * dim + c], expected);
                    ASSERT_EQ(turned[h + 7 * q + 7 * num_queries * c], expected);
                }
            }
        }
        for (std::size_t i = 6; i < turned.size(); i += 7) {
            ASSERT_EQ(turned[i], -1.0F) << "in the gap";
        }
    }
}

TEST_F(AttendArguments, OutputThatDoesNotFitIsRefused) {
    std::vector<float> output(num_q_heads * 3 * dim, -1.0F);
    const std::span<float> all(output);
    EXPECT_EQ(call(view(3), all.first(all.size() - 1)), attend_status::output_too_small);
    EXPECT_EQ(call(view(3), all, {.output = {dim, num_q_heads * dim + 1, 1}}),
              attend_status::output_too_small);
    EXPECT_EQ(call(view(3), all, {.output = {0, dim, 1}}), attend_status::output_too_small);
    constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
    EXPECT_EQ(call(view(3), all, {.output = {most, most, most}}), attend_status::output_too_small);
    for (const float value : output) {
        EXPECT_EQ(value, -1.0F);
    }
    EXPECT_EQ(call(view(3), all), attend_status::done);
}

TEST_F(AttendArguments, HeadsThatDoNotDivideAreRefused) {
    std::vector<float> output(5 * dim);
    EXPECT_EQ(call(view(1, 5), output), attend_status::heads_do_not_divide);
    EXPECT_EQ(call(view(1, 1), output), attend_status::heads_do_not_divide);
    heads.clear();
    EXPECT_EQ(call(view(1, 5), output), attend_status::heads_do_not_divide);
    EXPECT_EQ(call(view(1, 0), output), attend_status::done);
}

TEST_F(AttendArguments, WeightsNeedAStrideThatHoldsTheLongestHead) {
    std::vector<float> output(num_q_heads * 2 * dim);
    std::vector<float> weights(num_q_heads * 2 * 9, -1.0F);
    EXPECT_EQ(call(view(2), output, {.weights = weights, .weights_stride = 8}),
              attend_status::weights_too_small);
    EXPECT_EQ(call(view(2), output, {.weights = weights, .weights_stride = 10}),
              attend_status::weights_too_small);
    EXPECT_EQ(call(view(2), output, {.weights = std::span(weights).first(weights.size() - 1)}),
              attend_status::weights_too_small);
    ASSERT_EQ(call(view(2), output, {.weights = weights}), attend_status::done);
    for (std::size_t row = 0; row < num_q_heads; ++row) {
        float sum = 0.0F;
        for (std::size_t t = 0; t < 9; ++t) {
            sum += weights[row * 9 + t];
        }
        EXPECT_NEAR(sum, 1.0F, 1e-6F) << "a row has the length of the longest head";
    }
    EXPECT_EQ(weights[8], 0.0F) << "the first query does not see the last row";
}

TEST_F(AttendArguments, WorkspaceAndSumsThatAreTooSmallAreRefused) {
    for (const std::size_t num_queries : std::initializer_list<std::size_t>{2, 40}) {
        std::vector<float> output(num_q_heads * num_queries * dim);
        std::vector<float> sums(num_q_heads * num_queries - 1);
        EXPECT_EQ(call(view(num_queries), output, {.log_sum_exp = sums}),
                  attend_status::log_sum_exp_too_small);
        memory.resize(attend_workspace(view(num_queries), heads, dim) - 1);
        EXPECT_EQ(attend(view(num_queries), heads, dim, output, memory),
                  attend_status::workspace_too_small);
    }
}

TEST_F(AttendArguments, SegmentsNeedKernelsOnlyForRows) {
    std::vector<float> output(num_q_heads * dim);
    attend_segment segment{};
    heads[1] = {&segment, 1};
    EXPECT_EQ(call(view(1), output), attend_status::done);
    segment.count = 1;
    EXPECT_EQ(call(view(1), output), attend_status::segment_without_kernels);
}

TEST_F(AttendArguments, NoQueriesAreFine) { EXPECT_EQ(call(view(0), {}), attend_status::done); }

KVCRUSH_ON_EVERY_RUNG(AttendShapes);

} // namespace
} // namespace kvcrush
