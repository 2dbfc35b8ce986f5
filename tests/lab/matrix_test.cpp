// SPDX-License-Identifier: Apache-2.0
#include "matrix.hpp"

#include <kvcrush/core/random.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace {

lab::matrix random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
    lab::matrix result(rows, cols);
    for (std::size_t i = 0; i < rows * cols; ++i) {
        result.data()[i] = 2.0F * kvcrush::random_unit(seed, 0, i) - 1.0F;
    }
    return result;
}

/// A chain of cols fused multiply-adds of numbers up to 1 is off by cols * 2^-24 of the sum of magnitudes at most.
TEST(PackedMatrix, MultipliesAsADoubleLoop) {
    for (const std::size_t outputs : {1U, 63U, 64U, 65U, 200U}) {
        for (const std::size_t inputs : {1U, 3U, 64U, 577U}) {
            const lab::matrix weights = random_matrix(outputs, inputs, outputs);
            const lab::packed_matrix packed(weights);
            for (const std::size_t tokens : {0U, 1U, 2U, 3U, 5U, 6U, 17U}) {
                const lab::matrix input = random_matrix(tokens, inputs, tokens + 1);
                std::vector<float> result(tokens * outputs + 1, -99.0F);
                lab::multiply(packed, input.data(), tokens, result.data());
                for (std::size_t t = 0; t < tokens; ++t) {
                    for (std::size_t o = 0; o < outputs; ++o) {
                        double sum = 0;
                        double magnitude = 0;
                        for (std::size_t i = 0; i < inputs; ++i) {
                            const double product = double{input.row(t)[i]} * double{weights.row(o)[i]};
                            sum += product;
                            magnitude += std::abs(product);
                        }
                        ASSERT_NEAR(double{result[t * outputs + o]},
                                    sum,
                                    magnitude * std::ldexp(static_cast<double>(inputs + 1), -23))
                            << outputs << " outputs, " << inputs << " inputs, token " << t << " of "
                            << tokens << ", output " << o;
                    }
                }
                ASSERT_EQ(result.back(), -99.0F);
            }
        }
    }
}

TEST(PackedMatrix, GivesItsRowsBack) {
    const lab::matrix rows = random_matrix(130, 37, 1);
    const lab::packed_matrix packed(rows);
    std::vector<float> row(37);
    for (std::size_t r = 0; r < rows.rows(); ++r) {
        packed.copy_row(r, row);
        ASSERT_EQ(row, std::vector<float>(rows.row(r).begin(), rows.row(r).end())) << "row " << r;
    }
}

} // namespace
