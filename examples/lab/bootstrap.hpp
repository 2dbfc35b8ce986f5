// SPDX-License-Identifier: Apache-2.0
/// @file
/// How sure a mean over few samples is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace lab {

/// A figure with its 95 % percentile bootstrap interval.
struct interval {
    double value = 0.0;
    double lo = 0.0;
    double hi = 0.0;
};

struct bootstrap_options {
    std::size_t resamples = 10'000;
    std::uint64_t seed = 0;
};

/// Draws as many samples as there are, with replacement, again and again; 2.5 % and 97.5 % of their means (linear).
/// The same seed and count draw the same samples for every metric and policy.
/// @return NaN three times for no values
[[nodiscard]] interval bootstrap_mean(std::span<const double> values,
                                      const bootstrap_options& options = {});

/// Of the mean of a - b: both were measured on the same samples, in the same order.
/// @throws input_error if there are not as many of one as of the other
[[nodiscard]] interval bootstrap_difference(std::span<const double> a,
                                            std::span<const double> b,
                                            const bootstrap_options& options = {});

/// Of the geometric mean of a / b, sample by sample.
/// @return NaN three times if a value is not above 0
/// @throws input_error likewise
[[nodiscard]] interval bootstrap_ratio(std::span<const double> a,
                                       std::span<const double> b,
                                       const bootstrap_options& options = {});

} // namespace lab
