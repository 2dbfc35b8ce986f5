// SPDX-License-Identifier: Apache-2.0
/// @file
/// Binary codes of tokens: one bit per head, set where the head's cut holds the token.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/detail/pack_bits_avx2.hpp>
#include <kvcrush/simd/detail/pack_bits_avx512.hpp>
#include <kvcrush/simd/detail/pack_bits_scalar.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// Units of one code of `num_bits` bits: one, except that codes of 64-bit words take as many as
/// they need.
template <CodeWord Code>
[[nodiscard]] constexpr std::size_t words_per_code(std::size_t num_bits) noexcept {
    return sizeof(Code) < 8 ? 1 : (num_bits + 63) / 64;
}

/// Packs the decisions of all heads into one code per token.
///
///     bit h of codes[t] = cuts[h] contains scores[h, t]
/// @param[in]  scores      [cuts.size(), row_stride], row-major; of each row the first tokens
///   count, one per code
/// @param[in]  row_stride  distance between the rows of two heads [elements]
/// @param[in]  cuts        one per head, as find_rank_cut gives them for the tokens of its row
/// @param[out] codes       [tokens, words_per_code]; bits without a head are 0
/// @pre   cuts.size() <= bits of Code, unless those are 64; codes.size() is a multiple of
///   words_per_code
template <CodeWord Code>
void pack_heads(std::span<const float> scores,
                std::size_t row_stride,
                std::span<const rank_cut> cuts,
                std::span<Code> codes,
                isa at_most = best()) noexcept {
    if (cuts.empty()) {
        for (Code& code : codes) {
            code = 0;
        }
        return;
    }
    const std::size_t words = words_per_code<Code>(cuts.size());
    const std::size_t num_tokens = codes.size() / words;
    KVCRUSH_ASSERT(sizeof(Code) == 8 || cuts.size() <= 8 * sizeof(Code));
    KVCRUSH_ASSERT(codes.size() % words == 0);
    KVCRUSH_ASSERT(scores.size() >= (cuts.size() - 1) * row_stride + num_tokens);
    const detail::pack_args<Code> args{
        scores.data(), row_stride, cuts, codes.data(), words, num_tokens};
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::pack_blocks<detail::pack_kernels_avx512>(args);
    case isa::avx2: return detail::pack_blocks<detail::pack_kernels_avx2>(args);
#endif
    default: return detail::pack_heads_scalar(args);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
