// SPDX-License-Identifier: Apache-2.0
/// @file
/// How weights are rounded to whole numbers so that sums over many small ones keep their size.
#pragma once

#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/config.hpp>

#include <array>
#include <cstddef>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// What is added before a weight is rounded down, evenly spread over [0, 1) in every run of rows: multiples of the golden
/// section.
alignas(64) inline constexpr std::array<float, attend_tile> rounding_thresholds = [] {
    std::array<float, attend_tile> all{};
    double at = 0.5 / static_cast<double>(attend_tile);
    for (float& one : all) {
        one = static_cast<float>(at);
        at += 0.6180339887498949;
        at -= at >= 1.0 ? 1.0 : 0.0;
    }
    return all;
}();

} // namespace detail
} // namespace v0
} // namespace kvcrush
