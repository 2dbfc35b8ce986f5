// SPDX-License-Identifier: Apache-2.0
/// @file
/// The two passes over the logits of a tile that a softmax needs that runs along with the rows.
#pragma once

#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/rungs/on_rung.hpp>
#include <kvcrush/simd/detail/softmax_kernels.hpp>
#include <kvcrush/simd/exp.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Query rows and their softmax so far.
struct running_softmax_args {
    float* logits; ///< [num_rows][attend_tile]
    std::size_t num_rows;
    const std::size_t* seen; ///< [num_rows], how many of the tile's rows each may see
    const float* bias;       ///< [num_rows], added to logits
    float* largest;          ///< [num_rows], the largest logit
    float* sum;              ///< [num_rows], of e^(logit - largest)
    float* values;           ///< [num_rows][value_dim], sums weighted with the same
    std::size_t value_dim;
};

namespace on_scalar {

inline void run_softmax(const running_softmax_args& args) noexcept {
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        float* const row = args.logits + r * attend_tile;
        const float before = args.largest[r];
        float largest = before;
        for (std::size_t t = 0; t < args.seen[r]; ++t) {
            row[t] += args.bias[r];
            largest = row[t] > largest ? row[t] : largest;
        }
        if (largest != before) {
            const float factor = simd::detail::exp_scalar(before - largest);
            args.largest[r] = largest;
            args.sum[r] *= factor;
            simd::detail::on_scalar::scale(
                args.values + r * args.value_dim, factor, args.value_dim);
        }
        for (std::size_t t = 0; t < args.seen[r]; ++t) {
            row[t] = simd::detail::exp_scalar(row[t] - largest);
            args.sum[r] += row[t];
        }
        std::fill(row + args.seen[r], row + attend_tile, 0.0F);
    }
}

} // namespace on_scalar

#define KVCRUSH_SCALAR_BY_HAND
#define KVCRUSH_ALGORITHM <kvcrush/attend/detail/running_softmax.inl>
#include <kvcrush/simd/detail/rungs/each.inl>

/// Adds the bias to logits and turns them into e^(logit - largest), those that are not seen into 0. What was summed so
/// far is multiplied with what it takes where the largest logit is another one now.
inline void run_softmax(const running_softmax_args& args, simd::isa rung) noexcept {
    KVCRUSH_ON_RUNG(detail, rung, run_softmax(args))
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
