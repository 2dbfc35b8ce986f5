// SPDX-License-Identifier: Apache-2.0
/// @file
/// What binary codes are made of, and what a distance between two of them is written to.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// One unit of a packed code, bit 0 being the lowest. Codes of up to 8, 16 and 32 bits are one unit
/// of their own size, because most models have 8 to 32 heads and padding them to 64 bits would only
/// move zeros; every other code is a run of 64-bit words.
template <typename T>
concept CodeWord = std::same_as<T, std::uint8_t> || std::same_as<T, std::uint16_t> ||
                   std::same_as<T, std::uint32_t> || std::same_as<T, std::uint64_t>;

/// Units of one code of `num_bits` bits: one, except that codes of 64-bit words take as many as
/// they need.
template <CodeWord Code>
[[nodiscard]] constexpr std::size_t words_per_code(std::size_t num_bits) noexcept {
    return sizeof(Code) < 8 ? 1 : (num_bits + 63) / 64;
}

/// A Hamming distance [bits]. Wider types would only cost bandwidth: codes have at most 4096 bits.
template <typename T>
concept Distance = std::same_as<T, std::uint8_t> || std::same_as<T, std::uint16_t>;

} // namespace simd
} // namespace v0
} // namespace kvcrush
