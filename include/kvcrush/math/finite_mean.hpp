// SPDX-License-Identifier: Apache-2.0
/// @file
/// The mean of scores, some of which may be no numbers.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// A mean, and how many values it is of.
struct counted_mean {
    double mean = 0.0;
    std::size_t count = 0;
};

/// The mean of the scores that are finite, 0 where none is: one NaN must not silence a head. Summed in double, from the
/// first to the last.
[[nodiscard]] inline counted_mean finite_mean(std::span<const float> scores) noexcept {
    double sum = 0.0;
    std::size_t count = 0;
    for (const float score : scores) {
        if (std::isfinite(score)) {
            sum += static_cast<double>(score);
            ++count;
        }
    }
    return {count == 0 ? 0.0 : sum / static_cast<double>(count), count};
}

} // namespace v0
} // namespace kvcrush
