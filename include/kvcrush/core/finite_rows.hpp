// SPDX-License-Identifier: Apache-2.0
/// @file
/// Whether rows may be encoded at all. Decided on the bits of numbers: with -ffast-math compilers take it that there is no
/// NaN and no infinity, and leave out what asks for them.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace detail {

inline constexpr std::uint32_t bits_of_infinity = 0x7F800000U;

[[nodiscard]] constexpr std::uint32_t magnitude_bits(float value) noexcept {
    return std::bit_cast<std::uint32_t>(value) & 0x7FFFFFFFU;
}

/// One pass without branches, which compilers turn into vector code.
[[nodiscard]] constexpr std::uint32_t
largest_magnitude_bits(std::span<const float> values) noexcept {
    std::uint32_t largest = 0;
    for (const float value : values) {
        const std::uint32_t magnitude = magnitude_bits(value);
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

/// Whether |value| is below a finite limit that is not negative; NaN is not.
[[nodiscard]] constexpr bool magnitude_below(float value, float limit) noexcept {
    return magnitude_bits(value) < std::bit_cast<std::uint32_t>(limit);
}

/// Likewise all of them.
[[nodiscard]] constexpr bool all_below(std::span<const float> values, float limit) noexcept {
    return largest_magnitude_bits(values) < std::bit_cast<std::uint32_t>(limit);
}

[[nodiscard]] constexpr bool is_finite(float value) noexcept {
    return magnitude_bits(value) < bits_of_infinity;
}
[[nodiscard]] constexpr bool is_finite(double value) noexcept {
    return (std::bit_cast<std::uint64_t>(value) & 0x7FFFFFFFFFFFFFFFU) < 0x7FF0000000000000U;
}

} // namespace detail

/// False if a value is NaN or infinite.
[[nodiscard]] constexpr bool all_finite(std::span<const float> values) noexcept {
    return detail::largest_magnitude_bits(values) < detail::bits_of_infinity;
}

} // namespace v0
} // namespace kvcrush
