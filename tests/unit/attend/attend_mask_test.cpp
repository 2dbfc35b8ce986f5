// SPDX-License-Identifier: Apache-2.0
/// Masks, soft-caps, slopes and sinks against the same in double.
#include <kvcrush/attend/attend.hpp>
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/core/random.hpp>

#include "stored_cache.hpp"
#include "unit/simd/every_rung.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <limits>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

using reference::expect_exact;
using reference::logit_shaping;
using reference::normal_floats;
using reference::placing;
using reference::run_attend;
using reference::stored_cache;

constexpr float hidden = -std::numeric_limits<float>::infinity();

/// What masks look like that engines make.
enum class kind { causal, window, scattered, sequences, biased, nothing_seen, everything };

/// The number of (query, row), as f16 holds it.
float mask_at(
    kind what, std::size_t query, std::size_t row, std::size_t queries, std::size_t rows) {
    const std::size_t end = rows > queries - 1 - query ? rows - (queries - 1 - query) : 0;
    switch (what) {
    case kind::causal: return row < end ? 0.0F : hidden;
    case kind::window: return row < end && row + 70 >= end ? 0.0F : hidden;
    case kind::scattered: return random_unit(5, query, row) < 0.2F ? 0.0F : hidden;
    case kind::sequences: return row % 4 == query % 4 ? 0.0F : hidden;
    case kind::biased:
        return random_unit(6, query, row) < 0.1F ? hidden : -static_cast<float>(row % 64) / 8.0F;
    case kind::nothing_seen: return query % 2 == 0 ? hidden : row == 0 ? 0.0F : hidden;
    case kind::everything: return 0.0F;
    }
    return 0.0F;
}

/// A mask in memory and in double.
struct made_mask {
    std::vector<float> floats;
    std::vector<f16> halves;
    std::size_t stride;
    std::vector<std::vector<double>> expected;

    made_mask(kind what, std::size_t queries, std::size_t rows, std::size_t extra)
        : stride(rows + extra), expected(queries) {
        for (std::size_t q = 0; q < queries; ++q) {
            for (std::size_t t = 0; t < stride; ++t) {
                const float number = t < rows ? mask_at(what, q, t, queries, rows) : 3.0F;
                floats.push_back(number);
                halves.push_back(from_float<f16>(number));
                if (t < rows) {
                    expected[q].push_back(static_cast<double>(number));
                }
            }
        }
        // The last row of a mask may end where the longest head does.
        floats.resize(floats.size() - extra);
        halves.resize(halves.size() - extra);
    }
};

class AttendMask : public reference::every_rung {
protected:
    [[nodiscard]] stored_cache cache(std::size_t rows) const {
        stored_cache made(64, 32, rung());
        for (int head = 0; head < 2; ++head) {
            made.begin_head();
            made.add_segment(dense_codec<float>{}, dense_codec<f16>{}, rows / 3);
            made.add_segment(q8_0_codec{},
                             q4_0_codec{},
                             rows - rows / 3,
                             head == 0 ? placing::selected : placing::in_a_row,
                             true);
        }
        return made;
    }
};

TEST_P(AttendMask, HidesWhatItSaysAndAddsTheRest) {
    for (const kind what : {kind::causal,
                            kind::window,
                            kind::scattered,
                            kind::sequences,
                            kind::biased,
                            kind::nothing_seen,
                            kind::everything}) {
        for (const std::size_t rows : std::initializer_list<std::size_t>{1, 65, 200, 1100}) {
            const stored_cache stored = cache(rows);
            for (const std::size_t queries : std::initializer_list<std::size_t>{1, 4, 33}) {
                const made_mask mask(what, queries, rows, queries % 5);
                for (const bool as_halves : {false, true}) {
                    attend_options options;
                    options.mask.stride = mask.stride;
                    as_halves ? static_cast<void>(options.mask.halves = mask.halves)
                              : static_cast<void>(options.mask.floats = mask.floats);
                    expect_exact(stored,
                                 6,
                                 queries,
                                 "mask " + std::to_string(static_cast<int>(what)) + ", " +
                                     std::to_string(rows) + " rows, " + std::to_string(queries) +
                                     " queries",
                                 3e-5,
                                 1.0F,
                                 1 + queries % 3,
                                 {.mask = mask.expected},
                                 options);
                }
            }
        }
    }
}

TEST_P(AttendMask, HasASlopePerHeadAndASoftCap) {
    const std::vector<float> slopes{0.5F, 0.25F, 0.125F, 1.0F, 0.0F, 2.0F};
    const stored_cache stored = cache(150);
    for (const float soft_cap : {0.0F, 0.5F, 5.0F, 50.0F}) {
        for (const std::size_t queries : std::initializer_list<std::size_t>{1, 3, 40}) {
            const made_mask mask(kind::biased, queries, 150, 0);
            attend_options options{.soft_cap = soft_cap};
            logit_shaping shaping{.soft_cap = static_cast<double>(soft_cap)};
            // Queries far larger than usual reach the cap.
            expect_exact(stored, 6, queries, "causal", 6e-5, 9.0F, 1, shaping, options);
            options.mask.halves = mask.halves;
            options.mask.slopes = slopes;
            shaping.mask = mask.expected;
            shaping.slopes = {slopes.begin(), slopes.end()};
            expect_exact(stored, 6, queries, "slopes", 6e-5, 9.0F, 2, shaping, options);
        }
    }
}

TEST_P(AttendMask, GivesSinksTheirShare) {
    const std::vector<float> sinks{0.0F, -3.0F, 4.0F, 30.0F, -200.0F, hidden};
    stored_cache stored = cache(90);
    for (const std::size_t queries : std::initializer_list<std::size_t>{1, 3, 40}) {
        const made_mask mask(kind::nothing_seen, queries, 90, 0);
        attend_options options{.sinks = sinks};
        logit_shaping shaping{.sinks = {sinks.begin(), sinks.end()}};
        expect_exact(stored, 6, queries, "causal", 3e-5, 1.0F, 1, shaping, options);
        options.mask.halves = mask.halves;
        shaping.mask = mask.expected;
        expect_exact(stored, 6, queries, "nothing seen", 3e-5, 1.0F, 1, shaping, options);
    }
}

TEST_P(AttendMask, GivesTheBitsOfTheCausalCall) {
    const stored_cache stored = cache(300);
    for (const std::size_t queries : std::initializer_list<std::size_t>{1, 5, 64}) {
        const std::vector<float> rows = normal_floats(6 * queries * 64, 3);
        const made_mask mask(kind::causal, queries, 300, 0);
        attend_options options;
        options.mask.halves = mask.halves;
        const auto causal = run_attend(stored, rows, 6, queries);
        const auto masked =
            run_attend(stored, rows, 6, queries, 2, 0.0F, true, serial_executor{}, options);
        EXPECT_EQ(masked.output, causal.output) << queries;
        EXPECT_EQ(masked.log_sum_exp, causal.log_sum_exp);
        EXPECT_EQ(masked.weights, causal.weights);
    }
}

TEST(AttendMaskArguments, ThatDoNotFitAreRefusedWithNothingWritten) {
    stored_cache stored(8, 8, simd::best());
    stored.begin_head();
    stored.add_segment(dense_codec<float>{}, dense_codec<float>{}, 9);
    const std::vector<attend_head> heads = stored.heads();
    const std::vector<float> rows(2 * 3 * 8, 1.0F);
    const query_view queries(rows, 2, 3, 8);
    std::vector<float> memory(10'000);
    std::vector<float> output(rows.size(), 7.0F);
    const std::vector<float> untouched = output;
    const std::vector<float> numbers(27, 0.0F);
    const std::vector<f16> halves(27);
    const auto call = [&](const attend_options& how) {
        return attend(queries, heads, 8, output, memory, how);
    };
    const auto with = [&](auto change) {
        attend_options how;
        how.mask.floats = numbers;
        change(how);
        const attend_status status = call(how);
        EXPECT_EQ(output, untouched);
        EXPECT_NE(describe(status), "unknown");
        return status;
    };
    EXPECT_EQ(with([&](auto& how) { how.mask.floats = std::span(numbers).first(26); }),
              attend_status::mask_too_small);
    EXPECT_EQ(with([&](auto& how) { how.mask.stride = 8; }), attend_status::mask_too_small);
    EXPECT_EQ(with([&](auto& how) { how.mask.stride = 10; }), attend_status::mask_too_small);
    EXPECT_EQ(with([&](auto& how) { how.mask.stride = ~std::size_t{0}; }),
              attend_status::mask_too_small);
    EXPECT_EQ(with([&](auto& how) { how.mask.halves = halves; }), attend_status::mask_too_small);
    EXPECT_EQ(with([&](auto& how) { how.mask.slopes = std::span(numbers).first(1); }),
              attend_status::not_one_per_head);
    EXPECT_EQ(with([&](auto& how) { how.sinks = std::span(numbers).first(3); }),
              attend_status::not_one_per_head);
    for (const float bad : {-1.0F, std::numeric_limits<float>::quiet_NaN(), -hidden}) {
        EXPECT_EQ(with([&](auto& how) { how.soft_cap = bad; }), attend_status::soft_cap_not_finite);
    }
    attend_options good;
    good.mask.floats = numbers;
    EXPECT_EQ(call(good), attend_status::done);
}

KVCRUSH_ON_EVERY_RUNG(AttendMask);

} // namespace
} // namespace kvcrush
