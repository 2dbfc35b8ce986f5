// SPDX-License-Identifier: Apache-2.0
/// @file
/// Decisions of one head for 16 tokens as a 16-bit mask, and the transposition of 32 such masks into the codes of
/// those tokens. Masks cost a store per 16 tokens, where building codes directly costs a load, an or and a store of
/// 16 codes; transposing costs a byte mask per token and 32 heads (vpmovmskb).
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/ordered_key_avx.hpp>
#include <kvcrush/simd/ordered_key.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// Tokens of one mask.
inline constexpr std::size_t tokens_per_mask = 16;
/// Heads that are transposed together.
inline constexpr std::size_t heads_per_tile = 32;

using mask_tile = std::array<std::uint16_t, heads_per_tile>;
using code_tile = std::array<std::uint32_t, tokens_per_mask>;

/// Scores whose keys are at least `bound`, when the bound belongs to a score above zero: then bits of floats order
/// like keys, and everything else (negative scores, zeros, NaN of both signs) falls outside one unsigned range.
struct positive_range {
    std::uint32_t low;
    std::uint32_t width;
};

[[nodiscard]] constexpr bool is_positive_key(std::uint32_t key) noexcept {
    return key > 0x80000000U && key <= 0xFF800000U;
}

[[nodiscard]] constexpr positive_range at_least_positive(std::uint32_t bound) noexcept {
    const std::uint32_t low = bound & 0x7FFFFFFFU;
    return {low, 0x7F800000U - low};
}

struct plane_kernels_scalar {
    /// masks[i * stride] (16-bit units) = which of scores[16 i ...] have keys of at least `bound`.
    static void write_masks(const float* scores,
                            std::size_t num_masks,
                            std::uint32_t bound,
                            unsigned char* masks,
                            std::size_t stride) noexcept {
        for (std::size_t i = 0; i < num_masks; ++i) {
            unsigned mask = 0;
            for (std::size_t t = 0; t < tokens_per_mask; ++t) {
                mask |= (ordered_key(scores[i * tokens_per_mask + t]) >= bound ? 1U : 0U) << t;
            }
            const auto narrow = static_cast<std::uint16_t>(mask);
            std::memcpy(masks + 2 * i * stride, &narrow, 2);
        }
    }

    /// Bit h of codes[t] = bit t of masks[h].
    static void transpose(const mask_tile& masks, code_tile& codes) noexcept {
        codes = {};
        for (std::size_t begin = 0; begin < heads_per_tile; begin += 8) {
            for (unsigned half = 0; half < 2; ++half) {
                std::uint64_t square = 0; // byte h: eight tokens of head begin + h
                for (std::size_t h = 0; h < 8; ++h) {
                    const unsigned byte = (unsigned{masks[begin + h]} >> (8 * half)) & 0xFFU;
                    square |= std::uint64_t{byte} << (8 * h);
                }
                square = transposed(square);
                for (std::size_t t = 0; t < 8; ++t) {
                    const auto byte = static_cast<std::uint32_t>((square >> (8 * t)) & 0xFFU);
                    codes[8 * half + t] |= byte << begin;
                }
            }
        }
    }

private:
    /// Swaps rows (bytes) and columns of 8 x 8 bits, by halves, quarters and eighths.
    [[nodiscard]] static constexpr std::uint64_t transposed(std::uint64_t square) noexcept {
        std::uint64_t swap = (square ^ (square >> 7)) & 0x00AA00AA00AA00AAU;
        square ^= swap ^ (swap << 7);
        swap = (square ^ (square >> 14)) & 0x0000CCCC0000CCCCU;
        square ^= swap ^ (swap << 14);
        swap = (square ^ (square >> 28)) & 0x00000000F0F0F0F0U;
        return square ^ swap ^ (swap << 28);
    }
};

#if KVCRUSH_X86_DISPATCH

struct plane_kernels_avx2 {
    KVCRUSH_TARGET_AVX2 static void write_masks(const float* scores,
                                                std::size_t num_masks,
                                                std::uint32_t bound,
                                                unsigned char* masks,
                                                std::size_t stride) noexcept {
        const __m256i bounds = _mm256_set1_epi32(signed_key(bound));
        for (std::size_t i = 0; i < num_masks; ++i, scores += tokens_per_mask) {
            const unsigned low = greater_avx2(bounds, signed_keys_avx2(_mm256_loadu_ps(scores)));
            const unsigned high =
                greater_avx2(bounds, signed_keys_avx2(_mm256_loadu_ps(scores + 8)));
            const auto mask = static_cast<std::uint16_t>(~(low | (high << 8)));
            std::memcpy(masks + 2 * i * stride, &mask, 2);
        }
    }

    KVCRUSH_TARGET_AVX2 static void transpose(const mask_tile& masks, code_tile& codes) noexcept {
        // Bytes of tokens 0 to 7 apart from those of tokens 8 to 15, heads in order.
        const __m256i low_bytes = _mm256_set1_epi16(0xFF);
        const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(masks.data()));
        const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(masks.data() + 16));
        const __m256i low =
            _mm256_packus_epi16(_mm256_and_si256(a, low_bytes), _mm256_and_si256(b, low_bytes));
        const __m256i high = _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
        __m256i first = _mm256_permute4x64_epi64(low, 0xD8);
        __m256i second = _mm256_permute4x64_epi64(high, 0xD8);
        for (std::size_t t = 8; t-- > 0;) { // the highest bit of each byte, then the next
            codes[t] = static_cast<std::uint32_t>(_mm256_movemask_epi8(first));
            codes[t + 8] = static_cast<std::uint32_t>(_mm256_movemask_epi8(second));
            first = _mm256_add_epi8(first, first);
            second = _mm256_add_epi8(second, second);
        }
    }
};

struct plane_kernels_avx512 : plane_kernels_avx2 {
    KVCRUSH_TARGET_AVX512 static void write_masks(const float* scores,
                                                  std::size_t num_masks,
                                                  std::uint32_t bound,
                                                  unsigned char* masks,
                                                  std::size_t stride) noexcept {
        if (is_positive_key(bound)) {
            const positive_range range = at_least_positive(bound);
            const __m512i low = _mm512_set1_epi32(static_cast<int>(range.low));
            const __m512i width = _mm512_set1_epi32(static_cast<int>(range.width));
            for (std::size_t i = 0; i < num_masks; ++i) {
                const __m512i bits = _mm512_loadu_si512(scores + i * tokens_per_mask);
                const __mmask16 mask = _mm512_cmple_epu32_mask(_mm512_sub_epi32(bits, low), width);
                std::memcpy(masks + 2 * i * stride, &mask, 2);
            }
            return;
        }
        const __m512i bounds = _mm512_set1_epi32(signed_key(bound));
        for (std::size_t i = 0; i < num_masks; ++i) {
            const __m512i keys = signed_keys_avx512(_mm512_loadu_ps(scores + i * tokens_per_mask));
            const __mmask16 mask = _mm512_cmpge_epi32_mask(keys, bounds);
            std::memcpy(masks + 2 * i * stride, &mask, 2);
        }
    }
};

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
