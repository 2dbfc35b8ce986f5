// SPDX-License-Identifier: Apache-2.0
/// Programs that trap floating-point exceptions must not be stopped by what is masked out or too small to count.
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/exp.hpp>
#include <kvcrush/simd/softmax.hpp>

#include "every_rung.hpp"
#include "fp_exceptions.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <limits>
#include <vector>

namespace {

namespace simd = kvcrush::simd;
using kvcrush::reference::raised_exceptions;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float most = std::numeric_limits<float>::max();

class FpExceptions : public kvcrush::reference::every_rung {};

TEST_P(FpExceptions, NoneOfExpWhateverTheArgument) {
    const std::vector<float> some{
        0.0F, -1.0F, -87.4F, -104.0F, -1e5F, -1e30F, -most, -infinity, 3.0F, 1e30F, most};
    for (std::size_t size = 0; size < 40; ++size) {
        std::vector<float> values(size);
        for (std::size_t i = 0; i < size; ++i) {
            values[i] = some[(i + size) % some.size()];
        }
        EXPECT_EQ(raised_exceptions([&] { simd::exp_many(values, values, rung()); }), 0) << size;
    }
}

/// Finite logits; `size` sets how large.
std::vector<float> logits(std::size_t count, float size, float shift) {
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) {
        values[i] = size * kvcrush::random_unit(3, 0, i) + shift;
    }
    return values;
}

TEST_P(FpExceptions, NoneOfSoftmaxOfFiniteLogits) {
    for (const float size : {1.0F, 100.0F, 1e30F}) {
        for (const float shift : {0.0F, -1e5F, -2e30F, 2e30F}) {
            for (const std::size_t count :
                 std::initializer_list<std::size_t>{1, 7, 8, 15, 16, 33, 100}) {
                std::vector<float> row = logits(count, size, shift);
                std::vector<float> again = row;
                std::vector<float> sums(row.size());
                EXPECT_EQ(raised_exceptions([&] {
                              simd::softmax(row, rung());
                              simd::softmax_add(again, sums, rung());
                          }),
                          0)
                    << count << " logits of " << size << " + " << shift;
            }
        }
    }
}

TEST_P(FpExceptions, NoneOfTilesOfFiniteLogits) {
    for (const float shift : {0.0F, -2e30F, 2e30F}) {
        for (const std::size_t count : std::initializer_list<std::size_t>{1, 8, 20, 63, 64}) {
            std::vector<float> tile = logits(3 * simd::key_tile, 1e30F, shift);
            std::vector<simd::softmax_state> states(3);
            std::vector<float> largest(3);
            EXPECT_EQ(raised_exceptions([&] {
                          simd::softmax_tile(tile.data(), count, states, largest, rung());
                          simd::softmax_tile(tile.data(), count, states, largest, rung());
                      }),
                      0)
                << count << " logits, shift " << shift;
        }
    }
}

KVCRUSH_ON_EVERY_RUNG(FpExceptions);

} // namespace
