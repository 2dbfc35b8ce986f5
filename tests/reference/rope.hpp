// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rotary position embedding in double, one obvious loop.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace kvcrush::reference {

/// Turns pair j of the first 2 * frequencies.size() channels by position * frequencies[j].
inline std::vector<double> rope(std::span<const double> row,
                                double position,
                                std::span<const double> frequencies,
                                bool interleaved) {
    std::vector<double> turned(row.begin(), row.end());
    const std::size_t pairs = frequencies.size();
    for (std::size_t j = 0; j < pairs; ++j) {
        const std::size_t a = interleaved ? 2 * j : j;
        const std::size_t b = interleaved ? 2 * j + 1 : j + pairs;
        const double angle = position * frequencies[j];
        turned[a] = row[a] * std::cos(angle) - row[b] * std::sin(angle);
        turned[b] = row[b] * std::cos(angle) + row[a] * std::sin(angle);
    }
    return turned;
}

} // namespace kvcrush::reference
