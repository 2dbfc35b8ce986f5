// SPDX-License-Identifier: Apache-2.0
/// @file
/// How many codes set each bit: a byte of a code becomes eight counters of a byte each, so one addition counts eight
/// bits. No rungs: it runs once per layer, over codes that are a fraction of the scores they were made of.
#pragma once

#include <kvcrush/simd/code_word.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace simd {

namespace detail {

/// Bit i of a byte in byte i.
inline constexpr auto spread_bits = [] {
    std::array<std::uint64_t, 256> table{};
    for (std::size_t byte = 0; byte < table.size(); ++byte) {
        for (std::size_t bit = 0; bit < 8; ++bit) {
            table[byte] |= std::uint64_t{byte >> bit & 1U} << (8 * bit);
        }
    }
    return table;
}();

} // namespace detail

/// Counts, for each bit of one unit of the codes, the codes that set it.
/// @param codes  [codes, words], row-major, fewer than 2^32 codes
/// @param word   the unit of each code that is looked at
/// @param words  units per code
template <CodeWord Code>
[[nodiscard]] std::array<std::uint32_t, std::numeric_limits<Code>::digits>
bit_totals(std::span<const Code> codes, std::size_t word, std::size_t words) noexcept {
    std::array<std::uint32_t, std::numeric_limits<Code>::digits> totals{};
    constexpr std::size_t most = 255; // what a byte can count
    for (std::size_t begin = word; begin < codes.size(); begin += most * words) {
        const std::size_t end = (std::min)(codes.size(), begin + most * words);
        std::array<std::uint64_t, sizeof(Code)> counters{};
        for (std::size_t i = begin; i < end; i += words) {
            const std::uint64_t code = codes[i];
            for (std::size_t byte = 0; byte < sizeof(Code); ++byte) {
                counters[byte] += detail::spread_bits[code >> (8 * byte) & 0xFFU];
            }
        }
        for (std::size_t bit = 0; bit < totals.size(); ++bit) {
            totals[bit] += static_cast<std::uint32_t>(counters[bit / 8] >> (bit % 8 * 8) & 0xFFU);
        }
    }
    return totals;
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
