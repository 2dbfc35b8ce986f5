// SPDX-License-Identifier: Apache-2.0
/// @file
/// KIVI's quantiser of one range, an element at a time, with codes in double.
#pragma once

#include <kvcrush/core/types.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace kvcrush::reference {

struct kivi_numbers {
    double scale = 0.0;
    double min = 0.0;
    std::vector<double> codes; ///< not yet rounded
};

inline kivi_numbers kivi_range(std::span<const float> values, std::size_t bits) {
    const auto [least, largest] = std::minmax_element(values.begin(), values.end());
    const double levels = bits == 2 ? 3.0 : 15.0;
    kivi_numbers result;
    result.min = static_cast<double>(to_float(to_f16(*least)));
    if (*least != *largest) {
        // In float, as the scale is defined: a quotient between two halves must fall on the same side.
        const float range = std::max(*largest - static_cast<float>(result.min), 0.0F);
        result.scale = static_cast<double>(to_float(to_f16(range / static_cast<float>(levels))));
    }
    for (const float value : values) {
        const double code =
            result.scale == 0.0 ? 0.0 : (static_cast<double>(value) - result.min) / result.scale;
        result.codes.push_back(std::clamp(code, 0.0, levels));
    }
    return result;
}

} // namespace kvcrush::reference
