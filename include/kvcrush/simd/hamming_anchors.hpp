// SPDX-License-Identifier: Apache-2.0
/// @file
/// Hamming distance of several codes to many, in one pass over the many.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/detail/hamming_anchors_avx512.hpp>
#include <kvcrush/simd/hamming.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {
namespace simd {

namespace detail {

/// Codes of a tile stay in the first cache, with room for the distances.
inline constexpr std::size_t anchor_tile_bytes = 16384;

/// The distances of one tile of codes to anchors[first_anchor] and those after it.
/// `num_codes` is the length of a row of `out`.
template <typename Code, typename Out>
void hamming_tile(std::span<const Code> anchors,
                  std::size_t num_anchors,
                  std::span<const Code> tile,
                  std::size_t num_tile_codes,
                  Out* out,
                  std::size_t num_codes,
                  isa rung) noexcept {
    const std::size_t words = anchors.size() / num_anchors;
    std::size_t anchor = 0;
#if KVCRUSH_X86_DISPATCH
    // Three anchors take the time of four, less than three single ones.
    for (; rung == isa::avx512 && anchor + 3 <= num_anchors; anchor += 4) {
        four_anchor_args<Code, Out> args{{}, tile.data(), words, num_tile_codes, {}};
        for (std::size_t i = 0; i < 4; ++i) {
            const std::size_t own = (std::min)(anchor + i, num_anchors - 1);
            args.query[i] = anchors.data() + own * words;
            args.out[i] = out + own * num_codes;
        }
        hamming_four_anchors_avx512(args);
    }
#endif
    for (; anchor < num_anchors; ++anchor) {
        hamming_many(anchors.subspan(anchor * words, words),
                     tile,
                     std::span<Out>(out + anchor * num_codes, num_tile_codes),
                     rung);
    }
}

} // namespace detail

/// Counts, for every code and every anchor, the bits in which they differ.
///
/// Codes are read once from memory for all anchors, four of which share each load. Byte-sized
/// outputs saturate: a distance above 255 is written as 255.
/// @param[in]  anchors      [num_anchors, words], row-major; words is 1, or 1 to 64 for codes of
///   64-bit words (no word at all gives zeros)
/// @param[in]  num_anchors  at least 1, unless everything is empty
/// @param[in]  codes        [tokens, words], row-major, no padding between codes
/// @param[out] out          distances [bits], [num_anchors, tokens]; must not overlap the inputs
/// @pre   out.size() is a multiple of num_anchors
/// @note  reads nothing beyond the codes, writes nothing beyond `out`
template <CodeWord Code, Distance Out>
void hamming_many_anchors(std::span<const Code> anchors,
                          std::size_t num_anchors,
                          std::span<const Code> codes,
                          std::span<Out> out,
                          isa at_most = best()) noexcept {
    if (num_anchors == 0) {
        return;
    }
    const std::size_t words = anchors.size() / num_anchors;
    const std::size_t num_codes = out.size() / num_anchors;
    KVCRUSH_ASSERT(anchors.size() == words * num_anchors && out.size() == num_codes * num_anchors);
    KVCRUSH_ASSERT(codes.size() == words * num_codes);
    KVCRUSH_ASSERT((std::is_same_v<Code, std::uint64_t>) ? words <= 64 : words == 1);
    const isa rung = usable(at_most);
    const std::size_t code_bytes = (std::max)(words * sizeof(Code), std::size_t{1});
    // A multiple of 32 codes: whole steps of every kernel.
    const std::size_t tile_codes =
        (std::max)(detail::anchor_tile_bytes / code_bytes / 32 * 32, std::size_t{32});
    for (std::size_t begin = 0; begin < num_codes; begin += tile_codes) {
        const std::size_t num = (std::min)(tile_codes, num_codes - begin);
        detail::hamming_tile(anchors,
                             num_anchors,
                             codes.subspan(begin * words, num * words),
                             num,
                             out.data() + begin,
                             num_codes,
                             rung);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
