// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/max_tile.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <vector>

namespace {

namespace simd = kvcrush::simd;

class MaxTile : public kvcrush::reference::every_rung {};

TEST_P(MaxTile, EqualsTheObviousLoopBitForBit) {
    for (const std::size_t rows : std::initializer_list<std::size_t>{0, 1, 2, 7, 64, 128}) {
        kvcrush::reference::guarded_buffer<float> tile(rows * simd::key_tile);
        std::vector<float> factors(rows);
        std::array<float, simd::key_tile> largest{};
        for (std::size_t i = 0; i < rows * simd::key_tile; ++i) {
            tile[i] = kvcrush::random_unit(1, rows, i);
        }
        for (std::size_t r = 0; r < rows; ++r) {
            factors[r] = kvcrush::random_unit(2, rows, r);
        }
        if (rows > 1) {
            tile[70] = std::numeric_limits<float>::quiet_NaN();
        }
        largest[3] = 2.0F;
        std::array<float, simd::key_tile> expected = largest;
        for (std::size_t r = 0; r < rows; ++r) {
            for (std::size_t t = 0; t < simd::key_tile; ++t) {
                const float value = factors[r] * tile[r * simd::key_tile + t];
                expected[t] = value > expected[t] ? value : expected[t];
            }
        }
        simd::max_tile(tile.span().data(), factors, largest, rung());
        EXPECT_EQ(largest, expected) << rows;
    }
}

KVCRUSH_ON_EVERY_RUNG(MaxTile);

} // namespace
