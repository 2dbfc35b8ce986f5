// SPDX-License-Identifier: Apache-2.0
/// @file
/// What softmax works on, and its kernels.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/rungs/on_rung.hpp>
#include <kvcrush/simd/exp.hpp>
#include <kvcrush/simd/logits.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <utility>

namespace kvcrush {
inline namespace v0 {
namespace simd {

namespace detail {

/// 1 / sum of weights, or 0 where there is no softmax.
[[nodiscard]] inline float inverse_or_zero(double sum) noexcept {
    return sum > 0.0 ? static_cast<float>(1.0 / sum) : 0.0F;
}

} // namespace detail

/// Softmax of rows under way: what is known of one row after some of its tiles.
struct softmax_state {
    /// Largest logit so far.
    float largest = -std::numeric_limits<float>::infinity();
    /// Partial sums of exp(logit - largest).
    std::array<double, 8> sums{};

    /// What turns exp(logit - largest) into a weight; 0 for a row without softmax.
    [[nodiscard]] float inverse_sum() const noexcept {
        const double sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) +
                           ((sums[4] + sums[5]) + (sums[6] + sums[7]));
        return detail::inverse_or_zero(sum);
    }
};

namespace detail {

/// Values added in float before the sum moves on to double: bounds its error however long a row is.
inline constexpr std::size_t softmax_block = 1024;

struct softmax_tile_args {
    float* tile;
    std::size_t num_rows;
    std::size_t count;
    softmax_state* states;
    float* largest;
};

struct add_tile_args {
    const float* tile;
    std::size_t num_rows;
    const float* factors;
    float* sums;
    std::size_t count;
};

namespace on_scalar {

inline float row_max(const float* in, std::size_t size) noexcept {
    float largest = -std::numeric_limits<float>::infinity();
    for (std::size_t i = 0; i < size; ++i) {
        largest = in[i] > largest ? in[i] : largest;
    }
    return largest;
}

/// Replaces logits by exp(logit - largest).
/// @return the sum of the results
inline double exp_row(float* row, std::size_t size, float largest) noexcept {
    double sum = 0.0;
    for (std::size_t i = 0; i < size; ++i) {
        row[i] = exp_scalar(row[i] - largest);
        sum += static_cast<double>(row[i]);
    }
    return sum;
}

/// out[i] += factor * in[i]
inline void add_scaled(const float* in, float factor, float* out, std::size_t size) noexcept {
    for (std::size_t i = 0; i < size; ++i) {
        out[i] += factor * in[i];
    }
}

inline void scale(float* row, float factor, std::size_t size) noexcept {
    for (std::size_t i = 0; i < size; ++i) {
        row[i] *= factor;
    }
}

inline void softmax_tile(const softmax_tile_args& args) noexcept {
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        float* const row = args.tile + r * key_tile;
        softmax_state& state = args.states[r];
        const float tile_max = row_max(row, args.count);
        if (tile_max > state.largest) {
            const double shrink = static_cast<double>(exp_scalar(state.largest - tile_max));
            for (double& sum : state.sums) {
                sum *= shrink;
            }
            state.largest = tile_max;
        }
        state.sums[0] += exp_row(row, args.count, state.largest);
        std::fill(row + args.count, row + key_tile, 0.0F);
        args.largest[r] = state.largest;
    }
}

inline void add_tile(const add_tile_args& args) noexcept {
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        add_scaled(args.tile + r * key_tile, args.factors[r], args.sums, args.count);
    }
}

inline void softmax_row(float* row, std::size_t size) noexcept {
    scale(row, inverse_or_zero(exp_row(row, size, row_max(row, size))), size);
}
inline void add_softmax_row(float* row, float* sums, std::size_t size) noexcept {
    add_scaled(row, inverse_or_zero(exp_row(row, size, row_max(row, size))), sums, size);
}

} // namespace on_scalar

#define KVCRUSH_SCALAR_BY_HAND
#define KVCRUSH_ALGORITHM <kvcrush/simd/detail/softmax_kernels.inl>
#include <kvcrush/simd/detail/rungs/each.inl>

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
