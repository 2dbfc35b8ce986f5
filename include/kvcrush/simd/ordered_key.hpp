// SPDX-License-Identifier: Apache-2.0
/// @file
/// Scores as integers: one order for all rungs, with NaN in a place of its own.
#pragma once

#include <bit>
#include <cstdint>

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// The key of no float: above that of +infinity.
inline constexpr std::uint32_t no_key = 0xFFFFFFFFU;

/// An unsigned number that orders as the scores do: -0 equals +0, and every NaN is 0, below
/// -infinity. Comparing keys does not depend on the denormal mode of the thread, as comparing
/// floats does.
[[nodiscard]] constexpr std::uint32_t ordered_key(float score) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(score);
    if ((bits & 0x7FFFFFFFU) > 0x7F800000U) {
        return 0;
    }
    // Negative ones run backwards; minus, not the complement, so that both zeros become 2^31.
    return (bits >> 31) != 0 ? 0U - bits : bits | 0x80000000U;
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
