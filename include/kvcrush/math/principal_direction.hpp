// SPDX-License-Identifier: Apache-2.0
/// @file
/// The direction that rows have in common: the first right singular vector of a matrix of rows.
#pragma once

#include <kvcrush/config.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// out = a * a / (largest entry of a * a); 0 stays 0.
inline void square_and_scale(std::span<const double> a, std::size_t dim, std::span<double> out) {
    std::fill(out.begin(), out.end(), 0.0);
    double largest = 0.0;
    for (std::size_t i = 0; i < dim; ++i) {
        double* const row = out.data() + i * dim;
        for (std::size_t k = 0; k < dim; ++k) {
            const double factor = a[i * dim + k];
            for (std::size_t j = 0; j < dim; ++j) {
                row[j] += factor * a[k * dim + j];
            }
        }
        largest = (std::max)(largest, row[i]); // no entry exceeds the largest of the diagonal
    }
    for (double& value : out) {
        value = largest > 0.0 ? value / largest : 0.0;
    }
}

} // namespace detail

/// The eigenvector of the largest eigenvalue of a symmetric matrix without negative eigenvalues, of length 1; all
/// zeros for a matrix of zeros, NaN or infinities. Its sign is arbitrary.
///
/// Power iteration by repeated squaring: after s squarings the other directions are down to (lambda_2 / lambda_1)^(2^s).
/// @param[in] moments  [dim, dim], rows^T * rows
/// @param[in] dim      channels
/// @return    [dim]
/// @note      O(dim^3); allocates: for calibration, not for hot paths
[[nodiscard]] inline std::vector<double> principal_direction(std::span<const double> moments,
                                                             std::size_t dim) {
    KVCRUSH_ASSERT(moments.size() == dim * dim);
    constexpr int num_squarings = 40; // equal eigenvalues of double differ by 2^-52 at least
    std::vector<double> direction(dim, 0.0);
    std::vector<double> power(moments.begin(), moments.end());
    std::vector<double> next(power.size());
    double largest = 0.0;
    for (const double value : power) {
        if (!std::isfinite(value)) {
            return direction;
        }
        largest = (std::max)(largest, std::abs(value));
    }
    if (largest == 0.0) {
        return direction;
    }
    for (double& value : power) {
        value /= largest;
    }
    for (int i = 0; i < num_squarings; ++i) {
        detail::square_and_scale(power, dim, next);
        const bool settled = next == power;
        power.swap(next);
        if (settled) {
            break;
        }
    }
    // What is left is v * v^T, times a number: its longest row is v.
    std::size_t best = 0;
    for (std::size_t i = 1; i < dim; ++i) {
        best = power[i * dim + i] > power[best * dim + best] ? i : best;
    }
    double squared = 0.0;
    for (std::size_t c = 0; c < dim; ++c) {
        direction[c] = power[best * dim + c];
        squared += direction[c] * direction[c];
    }
    for (double& value : direction) {
        value = squared > 0.0 ? value / std::sqrt(squared) : 0.0;
    }
    return direction;
}

} // namespace v0
} // namespace kvcrush
