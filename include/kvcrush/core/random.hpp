// SPDX-License-Identifier: Apache-2.0
/// @file
/// Random numbers that are the same on every platform, compiler and thread count.
#pragma once

#include <cstdint>

namespace kvcrush {
inline namespace v0 {

/// 64 well-mixed bits of (seed, stream, index), without state: any element can be drawn by any thread.
/// @see Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (the SplitMix64 finaliser)
[[nodiscard]] constexpr std::uint64_t
random_bits(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) noexcept {
    constexpr auto mix = [](std::uint64_t z) {
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
        return z ^ (z >> 31);
    };
    constexpr std::uint64_t golden = 0x9E3779B97F4A7C15ULL;
    return mix(mix(mix(seed + golden) + stream + golden) + (index + 1) * golden);
}

/// Uniform in [0, 1) with 24 random bits, exact in a float.
[[nodiscard]] constexpr float
random_unit(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) noexcept {
    return static_cast<float>(random_bits(seed, stream, index) >> 40) * 0x1p-24F;
}

} // namespace v0
} // namespace kvcrush
