// SPDX-License-Identifier: Apache-2.0
/// @file
/// The element types of a KV cache and the integers that count in it.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// Index of a token in the cache, 0 being the oldest.
using token_index = std::uint32_t;

/// Index of a page in the pool of a paged cache, as block tables hold them.
using page_index = std::int32_t;

/// IEEE 754 binary16, stored as its bits: no arithmetic, only conversion.
struct f16 {
    std::uint16_t bits = 0;
    friend constexpr bool operator==(f16, f16) = default;
};

/// bfloat16 (the upper half of a float), stored as its bits: no arithmetic, only conversion.
struct bf16 {
    std::uint16_t bits = 0;
    friend constexpr bool operator==(bf16, bf16) = default;
};

[[nodiscard]] constexpr float to_float(float value) noexcept { return value; }

[[nodiscard]] constexpr float to_float(bf16 value) noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

[[nodiscard]] constexpr float to_float(f16 value) noexcept {
    const std::uint32_t sign = (std::uint32_t{value.bits} & 0x8000U) << 16;
    const std::uint32_t exponent = (value.bits >> 10) & 0x1FU;
    const std::uint32_t fraction = value.bits & 0x3FFU;
    if (exponent == 0) { // zero and subnormals: fraction * 2^-24 is exact in a float
        const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
        return sign != 0 ? -magnitude : magnitude;
    }
    const std::uint32_t biased = exponent == 0x1FU ? 0xFFU : exponent + 112U;
    // A signalling NaN becomes a quiet one, as in hardware.
    const std::uint32_t quiet = exponent == 0x1FU && fraction != 0 ? 0x400000U : 0U;
    return std::bit_cast<float>(sign | (biased << 23) | (fraction << 13) | quiet);
}

/// Rounds to the nearest bf16, ties to even; NaN stays NaN.
[[nodiscard]] constexpr bf16 to_bf16(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7FFFFFFFU) > 0x7F800000U) {
        return {static_cast<std::uint16_t>((bits >> 16) | 0x40U)};
    }
    return {static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16)};
}

/// Rounds to the nearest f16, ties to even; too large becomes infinity, NaN stays NaN.
[[nodiscard]] constexpr f16 to_f16(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (bits >> 16) & 0x8000U;
    const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
    std::uint32_t half = 0;
    if (magnitude > 0x7F800000U) {
        half = 0x7E00U | ((magnitude >> 13) & 0x3FFU);
    } else if (magnitude >= 0x477FF000U) { // 65520 and above round to infinity
        half = 0x7C00U;
    } else if (magnitude <
               0x38800000U) { // below 2^-14: adding 0.5 rounds at 2^-24, the last subnormal bit
        half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3F000000U;
    } else {
        half = (magnitude - 0x38000000U + 0xFFFU + ((magnitude >> 13) & 1U)) >> 13;
    }
    return {static_cast<std::uint16_t>(sign | half)};
}

/// What K and V may be made of.
template <typename T>
concept Element =
    std::same_as<std::remove_const_t<T>, float> || std::same_as<std::remove_const_t<T>, f16> ||
    std::same_as<std::remove_const_t<T>, bf16>;

/// Converts one value; the inverse of to_float, rounding to nearest even.
template <Element T>
[[nodiscard]] constexpr T from_float(float value) noexcept {
    if constexpr (std::same_as<T, f16>) {
        return to_f16(value);
    } else if constexpr (std::same_as<T, bf16>) {
        return to_bf16(value);
    } else {
        return value;
    }
}

} // namespace v0
} // namespace kvcrush
