// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/dot.hpp>
#include <kvcrush/simd/norm.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <memory>
#include <span>
#include <vector>

namespace {

namespace simd = kvcrush::simd;
using kvcrush::reference::guarded_buffer;

/// Rows that each end at an unreadable page.
template <typename T>
struct guarded_rows {
    std::vector<std::unique_ptr<guarded_buffer<T>>> memory;
    std::vector<const T*> pointers;

    guarded_rows(std::size_t count, std::size_t dim) {
        for (std::size_t r = 0; r < count; ++r) {
            memory.push_back(std::make_unique<guarded_buffer<T>>(dim));
            for (std::size_t c = 0; c < dim; ++c) {
                (*memory[r])[c] = kvcrush::from_float<T>(kvcrush::random_unit(r, dim, c) - 0.5F);
            }
            pointers.push_back(memory[r]->span().data());
        }
    }
    [[nodiscard]] double at(std::size_t r, std::size_t c) const {
        return static_cast<double>(kvcrush::to_float(memory[r]->span()[c]));
    }
};

class RowProducts : public kvcrush::reference::every_rung {
protected:
    template <typename T>
    static void expect_references(std::size_t count, std::size_t dim) {
        const guarded_rows<T> rows(count, dim);
        guarded_buffer<float> with(dim);
        guarded_buffer<float> weights(count);
        for (std::size_t c = 0; c < dim; ++c) {
            with[c] = kvcrush::random_unit(99, dim, c) - 0.5F;
        }
        for (std::size_t r = 0; r < count; ++r) {
            weights[r] = kvcrush::random_unit(98, dim, r) - 0.5F;
        }
        guarded_buffer<float> products(count);
        guarded_buffer<float> squares(count);
        guarded_buffer<float> sums(dim);
        const std::span<const T* const> pointers(rows.pointers);
        simd::dots(pointers, with.span(), products.span(), rung());
        simd::squared_norms(pointers, dim, squares.span(), rung());
        simd::weighted_sum(pointers, weights.span(), sums.span(), rung());
        const double steps = static_cast<double>(dim) / 8.0 + 5.0;
        for (std::size_t r = 0; r < count; ++r) {
            double dot = 0.0;
            double magnitude = 0.0;
            double square = 0.0;
            for (std::size_t c = 0; c < dim; ++c) {
                dot += rows.at(r, c) * static_cast<double>(with[c]);
                magnitude += std::abs(rows.at(r, c) * static_cast<double>(with[c]));
                square += rows.at(r, c) * rows.at(r, c);
            }
            ASSERT_NEAR(static_cast<double>(products[r]), dot, steps * 0x1p-24 * magnitude);
            ASSERT_NEAR(static_cast<double>(squares[r]), square, steps * 0x1p-24 * square);
        }
        for (std::size_t c = 0; c < dim; ++c) {
            double sum = 0.0;
            double magnitude = 0.0;
            for (std::size_t r = 0; r < count; ++r) {
                sum += static_cast<double>(weights[r]) * rows.at(r, c);
                magnitude += std::abs(static_cast<double>(weights[r]) * rows.at(r, c));
            }
            ASSERT_NEAR(static_cast<double>(sums[c]),
                        sum,
                        static_cast<double>(count) * 0x1p-23 * magnitude);
        }
    }
};

TEST_P(RowProducts, EqualTheReferencesForEverySizeAndType) {
    for (const std::size_t count : std::initializer_list<std::size_t>{0, 1, 3, 4, 5}) {
        for (std::size_t dim = 0; dim < 100; ++dim) {
            expect_references<float>(count, dim);
            expect_references<kvcrush::f16>(count, dim);
            expect_references<kvcrush::bf16>(count, dim);
        }
    }
    expect_references<kvcrush::f16>(65, 256);
}

TEST_P(RowProducts, NanPassesThroughToItsRowAlone) {
    std::vector<float> rows(5 * 40, 1.0F);
    rows[2 * 40 + 33] = std::numeric_limits<float>::quiet_NaN();
    std::vector<const float*> pointers;
    for (std::size_t r = 0; r < 5; ++r) {
        pointers.push_back(rows.data() + r * 40);
    }
    const std::vector<float> with(40, 2.0F);
    std::vector<float> out(5);
    simd::dots<float>(pointers, with, out, rung());
    for (std::size_t r = 0; r < 5; ++r) {
        EXPECT_TRUE(r == 2 ? std::isnan(out[r]) : out[r] == 80.0F) << r;
    }
}

TEST_P(RowProducts, RootsAreThoseOfTheStandardLibrary) {
    for (std::size_t size = 0; size < 40; ++size) {
        guarded_buffer<float> values(size);
        for (std::size_t i = 0; i < size; ++i) {
            values[i] = kvcrush::random_unit(1, size, i) * 100.0F;
        }
        const std::vector<float> before(values.span().begin(), values.span().end());
        simd::scale_roots(values.span(), -2.0F, rung());
        for (std::size_t i = 0; i < size; ++i) {
            EXPECT_EQ(values[i], -2.0F * std::sqrt(before[i]));
        }
    }
}

KVCRUSH_ON_EVERY_RUNG(RowProducts);

} // namespace
