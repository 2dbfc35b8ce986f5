// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/softmax.hpp>

#include "../../reference/attention.hpp"
#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <vector>

namespace {

namespace simd = kvcrush::simd;
using kvcrush::reference::guarded_buffer;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr std::array<std::size_t, 22> sizes{0,  1,  2,  7,  8,  9,   15,   16,   17,   31,   32,
                                            33, 47, 63, 64, 65, 100, 1000, 1024, 1025, 1056, 5000};

void fill(std::span<float> values, std::uint64_t seed, float spread) {
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = (kvcrush::random_unit(seed, 0, i) - 0.5F) * spread;
    }
}

std::vector<double> expected_softmax(std::span<const float> logits) {
    return kvcrush::reference::softmax(std::vector<double>(logits.begin(), logits.end()));
}

/// The bound of the header: 2^-18 for exp, sum and division, 2^-24 |logit - largest| for the
/// difference, and nothing below the smallest normal float.
double bound(double expected, float logit, float largest) {
    if (!std::isfinite(logit) || !std::isfinite(largest)) {
        return 0.0;
    }
    const double distance = std::abs(static_cast<double>(logit) - static_cast<double>(largest));
    return expected * (0x1p-18 + 0x1p-24 * distance) + 0x1p-126;
}

void expect_weights(std::span<const float> logits, std::span<const float> weights) {
    const std::vector<double> expected = expected_softmax(logits);
    const float largest = simd::row_max(logits, simd::isa::scalar);
    for (std::size_t i = 0; i < logits.size(); ++i) {
        ASSERT_NEAR(
            static_cast<double>(weights[i]), expected[i], bound(expected[i], logits[i], largest))
            << "token " << i << " of " << logits.size();
    }
}

class Softmax : public kvcrush::reference::every_rung {
protected:
    static std::vector<float> of(std::vector<float> logits) {
        simd::softmax(logits, rung());
        return logits;
    }
};

TEST_P(Softmax, RowMaxIgnoresNan) {
    EXPECT_EQ(simd::row_max({}, rung()), -infinity);
    for (const std::size_t size : sizes) {
        guarded_buffer<float> row(size);
        for (std::size_t at = 0; at < size; at += 1 + size / 40) {
            std::fill(row.span().begin(), row.span().end(), nan);
            ASSERT_EQ(simd::row_max(row.span(), rung()), -infinity);
            row[at] = -3.0F;
            ASSERT_EQ(simd::row_max(row.span(), rung()), -3.0F) << at << " of " << size;
            row[size - 1 - at / 2] = 5.0F;
            ASSERT_EQ(simd::row_max(row.span(), rung()), 5.0F) << at << " of " << size;
        }
    }
}

TEST_P(Softmax, EqualsTheReference) {
    for (const std::size_t size : sizes) {
        for (const float spread : {0.0F, 1.0F, 30.0F, 400.0F}) {
            SCOPED_TRACE(testing::Message() << size << " logits, spread " << spread);
            guarded_buffer<float> row(size);
            fill(row.span(), size, spread);
            const std::vector<float> logits(row.span().begin(), row.span().end());
            simd::softmax(row.span(), rung());
            expect_weights(logits, row.span());
        }
    }
}

TEST_P(Softmax, AddingEqualsTheReference) {
    for (const std::size_t size : sizes) {
        guarded_buffer<float> row(size);
        guarded_buffer<float> sums(size);
        fill(row.span(), size, 10.0F);
        const std::vector<float> logits(row.span().begin(), row.span().end());
        std::fill(sums.span().begin(), sums.span().end(), 0.5F);
        simd::softmax_add(row.span(), sums.span(), rung());
        const std::vector<double> expected = expected_softmax(logits);
        const float largest = simd::row_max(logits, simd::isa::scalar);
        for (std::size_t i = 0; i < size; ++i) {
            // The addition itself rounds a result of at most 1.5.
            ASSERT_NEAR(static_cast<double>(sums[i]),
                        0.5 + expected[i],
                        bound(expected[i], logits[i], largest) + 0x1p-24)
                << "token " << i << " of " << size;
        }
    }
}

TEST_P(Softmax, NanWeighsNothing) {
    std::vector<float> logits(100);
    fill(logits, 5, 3.0F);
    for (const std::size_t at : std::initializer_list<std::size_t>{0U, 7U, 16U, 63U, 99U}) {
        logits[at] = nan;
        expect_weights(logits, of(logits));
    }
}

TEST_P(Softmax, MinusInfinityWeighsNothing) {
    std::vector<float> logits(70, 1.0F);
    logits[0] = -infinity;
    logits[69] = -infinity;
    const std::vector<float> weights = of(logits);
    EXPECT_EQ(weights[0], 0.0F);
    EXPECT_EQ(weights[69], 0.0F);
    EXPECT_FLOAT_EQ(weights[1], 1.0F / 68.0F);
}

TEST_P(Softmax, RowsWithoutSoftmaxAddNothing) {
    for (const std::size_t size : std::initializer_list<std::size_t>{1U, 15U, 16U, 33U, 100U}) {
        for (const float value : {nan, -infinity, infinity}) {
            SCOPED_TRACE(testing::Message() << size << " logits of " << value);
            const std::vector<float> logits(size, value);
            EXPECT_EQ(of(logits), std::vector<float>(size, 0.0F));
            std::vector<float> sums(size, 0.25F);
            std::vector<float> row = logits;
            simd::softmax_add(row, sums, rung());
            EXPECT_EQ(sums, std::vector<float>(size, 0.25F));
        }
        std::vector<float> one_infinite(size, 2.0F);
        one_infinite[size / 2] = infinity;
        EXPECT_EQ(of(one_infinite), std::vector<float>(size, 0.0F));
    }
}

TEST_P(Softmax, SurvivesLogitsOfAnySize) {
    constexpr float most = std::numeric_limits<float>::max();
    EXPECT_EQ(of({most, -most, 0.0F}), (std::vector<float>{1.0F, 0.0F, 0.0F}));
    EXPECT_EQ(of({-most, -most}), (std::vector<float>{0.5F, 0.5F}));
    EXPECT_EQ(of({-1e30F, -infinity}), (std::vector<float>{1.0F, 0.0F}));
}

/// Weights of rows whose logits pass tile by tile.
std::vector<float>
tiled(std::span<const float> logits, std::size_t num_rows, std::size_t size, simd::isa rung) {
    constexpr std::size_t width = simd::key_tile;
    const std::size_t num_tiles = (size + width - 1) / width;
    guarded_buffer<float> tiles(num_tiles * num_rows * width);
    std::vector<simd::softmax_state> states(num_rows);
    std::vector<float> largest(num_tiles * num_rows);
    std::fill(tiles.span().begin(), tiles.span().end(), 1e9F); // what no row sees must not matter
    for (std::size_t tile = 0; tile < num_tiles; ++tile) {
        const std::size_t count = std::min(width, size - tile * width);
        const auto block = tiles.span().subspan(tile * num_rows * width, num_rows * width);
        for (std::size_t r = 0; r < num_rows; ++r) {
            std::copy_n(&logits[r * size + tile * width], count, &block[r * width]);
        }
        simd::softmax_tile(block.data(),
                           count,
                           states,
                           std::span(largest).subspan(tile * num_rows, num_rows),
                           rung);
        for (std::size_t i = 0; i < block.size(); ++i) {
            EXPECT_TRUE(i % width < count || block[i] == 0.0F);
        }
    }
    std::vector<float> sums;
    for (std::size_t r = 0; r < num_rows; ++r) {
        guarded_buffer<float> row(size);
        for (std::size_t tile = 0; tile < num_tiles; ++tile) {
            std::vector<float> factors(num_rows, 0.0F);
            factors[r] = largest[tile * num_rows + r] - states[r].largest;
            simd::exp_many(
                std::span(factors).subspan(r, 1), std::span(factors).subspan(r, 1), rung);
            factors[r] *= states[r].inverse_sum();
            simd::add_tile(&tiles[tile * num_rows * width],
                           factors,
                           row.span().subspan(tile * width, std::min(width, size - tile * width)),
                           rung);
        }
        sums.insert(sums.end(), row.span().begin(), row.span().end());
    }
    return sums;
}

TEST_P(Softmax, TileByTileEqualsTheReference) {
    constexpr std::size_t num_rows = 5;
    for (const std::size_t size : sizes) {
        SCOPED_TRACE(testing::Message() << size << " logits");
        std::vector<float> logits(num_rows * size);
        fill(logits, size, 40.0F);
        for (std::size_t i = 0; i < size; ++i) {
            logits[i] = static_cast<float>(i) * 0.5F; // a new largest logit in every tile
            if (i % 3 == 0) {
                logits[size + i] = nan;
            }
            logits[2 * size + i] -= i < size / 2 ? infinity : 0.0F;
            logits[3 * size + i] = i == size / 3 ? infinity : logits[3 * size + i];
        }
        const std::vector<float> weights = tiled(logits, num_rows, size, rung());
        for (std::size_t r = 0; r < num_rows; ++r) {
            const auto row = std::span(logits).subspan(r * size, size);
            const std::vector<double> expected = expected_softmax(row);
            const float largest = simd::row_max(row, simd::isa::scalar);
            for (std::size_t i = 0; i < size; ++i) {
                // Differences are rounded twice, towards the tile's largest logit and from there to
                // the row's.
                ASSERT_NEAR(static_cast<double>(weights[r * size + i]),
                            expected[i],
                            2.0 * bound(expected[i], row[i], largest))
                    << "row " << r << ", token " << i;
            }
        }
    }
}

TEST(Softmax, VectorRungsAgreeBitForBit) {
    if (simd::best() < simd::isa::avx512) {
        GTEST_SKIP() << "this CPU lacks avx512";
    }
    for (const std::size_t size : sizes) {
        std::vector<float> wide(size);
        fill(wide, size, 20.0F);
        std::vector<float> narrow = wide;
        EXPECT_EQ(tiled(wide, 1, size, simd::isa::avx512), tiled(wide, 1, size, simd::isa::avx2));
        simd::softmax(wide, simd::isa::avx512);
        simd::softmax(narrow, simd::isa::avx2);
        EXPECT_EQ(wide, narrow) << size;
    }
}

KVCRUSH_ON_EVERY_RUNG(Softmax);

} // namespace
