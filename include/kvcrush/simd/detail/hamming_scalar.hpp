// SPDX-License-Identifier: Apache-2.0
/// @file
/// Hamming distances on any machine: std::popcount, unit by unit.
#pragma once

#include <kvcrush/config.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// One batch: `num_codes` codes of `words` units each.
template <typename Code, typename Out>
struct hamming_args {
    const Code* query;
    const Code* codes;
    std::size_t words;
    std::size_t num_codes;
    Out* out;
};

template <typename Out>
[[nodiscard]] constexpr Out saturate(unsigned distance) noexcept {
    if constexpr (std::is_same_v<Out, std::uint8_t>) {
        return static_cast<Out>(distance < 255U ? distance : 255U);
    } else {
        return static_cast<Out>(distance);
    }
}

template <typename Code, typename Out>
inline void hamming_many_scalar(const hamming_args<Code, Out>& args) noexcept {
    const Code* code = args.codes;
    for (std::size_t i = 0; i < args.num_codes; ++i) {
        unsigned distance = 0;
        for (std::size_t w = 0; w < args.words; ++w) {
            // Code is unsigned; the cast undoes the promotion of the small ones to int.
            distance +=
                static_cast<unsigned>(std::popcount(static_cast<Code>(code[w] ^ args.query[w])));
        }
        args.out[i] = saturate<Out>(distance);
        code += args.words;
    }
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
