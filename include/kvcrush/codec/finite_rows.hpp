// SPDX-License-Identifier: Apache-2.0
/// @file
/// Whether rows may be encoded at all.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// False if a value is NaN or infinite. One pass without branches, which compilers turn into vector code.
[[nodiscard]] inline bool all_finite(std::span<const float> values) noexcept {
    std::uint32_t largest = 0;
    for (const float value : values) {
        const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(value) & 0x7FFFFFFFU;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest < 0x7F800000U;
}

} // namespace v0
} // namespace kvcrush
