// SPDX-License-Identifier: Apache-2.0
/// @file
/// ggml's blocks with AVX-512, up to four blocks at a time: their reductions share shuffles, and their scales are four
/// lanes of one division. Codes of 4 bits are looked up among 16 floats that have been scaled before (vpermps).
#pragma once

#include <kvcrush/codec/detail/ggml_avx2.hpp>
#include <kvcrush/codec/detail/ggml_format.hpp>
#include <kvcrush/config.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// 32 channels.
struct ggml_channels_avx512 {
    __m512 low;
    __m512 high;
};

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512
rounded_product_avx512(__m512 a, __m512 b) noexcept {
    __m512 product = _mm512_mul_ps(a, b);
    __asm__("" : "+v"(product));
    return product;
}

/// Of two floats, or of their bits.
template <ggml_order Order>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512 extremes_avx512(__m512 a,
                                                                           __m512 b) noexcept {
    const __m512i a_bits = _mm512_castps_si512(a);
    const __m512i b_bits = _mm512_castps_si512(b);
    switch (Order) {
    case ggml_order::least: return _mm512_maskz_min_ps(0xFFFF, a, b);
    case ggml_order::largest: return _mm512_maskz_max_ps(0xFFFF, a, b);
    case ggml_order::signed_bits:
        return _mm512_castsi512_ps(_mm512_maskz_max_epi32(0xFFFF, a_bits, b_bits));
    case ggml_order::unsigned_bits: break;
    }
    return _mm512_castsi512_ps(_mm512_maskz_max_epu32(0xFFFF, a_bits, b_bits));
}

/// Lane b is the extreme of all lanes of v[b].
template <ggml_order Order>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m128
extreme_of_each_avx512(const __m512* v) noexcept {
    const __m512 ab = extremes_avx512<Order>(_mm512_maskz_unpacklo_ps(0xFFFF, v[0], v[1]),
                                             _mm512_maskz_unpackhi_ps(0xFFFF, v[0], v[1]));
    const __m512 cd = extremes_avx512<Order>(_mm512_maskz_unpacklo_ps(0xFFFF, v[2], v[3]),
                                             _mm512_maskz_unpackhi_ps(0xFFFF, v[2], v[3]));
    const __m512 all =
        extremes_avx512<Order>(_mm512_maskz_shuffle_ps(0xFFFF, ab, cd, _MM_SHUFFLE(1, 0, 1, 0)),
                               _mm512_maskz_shuffle_ps(0xFFFF, ab, cd, _MM_SHUFFLE(3, 2, 3, 2)));
    return extreme_of_lanes_avx2<Order>(extremes_avx2<Order>(
        _mm512_maskz_extractf32x8_ps(0xFF, all, 0), _mm512_maskz_extractf32x8_ps(0xFF, all, 1)));
}

/// Entries of ggml_table and the borders between them, found by x / 8 rounded down: no two borders share such a cell.
/// Permutations take indices modulo 32, so that cells -16..-1 are found at 16..31.
struct ggml_cells {
    std::array<float, 32> border;
    std::array<std::int32_t, 32> code; ///< below the border
};
inline constexpr ggml_cells ggml_cells_of_8 = [] {
    ggml_cells cells{};
    for (int cell = -16; cell < 16; ++cell) {
        const auto at = static_cast<std::size_t>(cell & 31);
        cells.border[at] = 1e9F;
        for (const float border : ggml_table_borders) {
            if (border <= static_cast<float>(8 * cell)) {
                ++cells.code[at];
            } else if (border < static_cast<float>(8 * cell + 8)) {
                cells.border[at] = border;
            }
        }
    }
    return cells;
}();

/// Codes of 16 values of magnitudes up to 127 and a little.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
ggml_table_codes_avx512(__m512 values) noexcept {
    const __m512 eighths = _mm512_mul_ps(values, _mm512_set1_ps(0.125F));
    __mmask16 all = 0xFFFF; // no constant: as a macro, without optimisation, it warns of one
    const __m512i cell =
        _mm512_maskz_cvt_roundps_epi32(all, eighths, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    const __m512 border =
        _mm512_permutex2var_ps(_mm512_loadu_ps(ggml_cells_of_8.border.data()),
                               cell,
                               _mm512_loadu_ps(ggml_cells_of_8.border.data() + 16));
    const __m512i code =
        _mm512_permutex2var_epi32(_mm512_loadu_si512(ggml_cells_of_8.code.data()),
                                  cell,
                                  _mm512_loadu_si512(ggml_cells_of_8.code.data() + 16));
    const __mmask16 above = _mm512_cmp_ps_mask(values, border, _CMP_GE_OQ);
    return _mm512_mask_add_epi32(code, above, code, _mm512_set1_epi32(1));
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512 ggml_table_avx512() noexcept {
    return _mm512_setr_ps(-127.0F,
                          -104.0F,
                          -83.0F,
                          -65.0F,
                          -49.0F,
                          -35.0F,
                          -22.0F,
                          -10.0F,
                          1.0F,
                          13.0F,
                          25.0F,
                          38.0F,
                          53.0F,
                          69.0F,
                          89.0F,
                          113.0F);
}

/// Codes of 16 channels.
template <typename Format>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
ggml_codes_avx512(__m512 x, float min, float inverse) noexcept {
    const __m512 scale = _mm512_set1_ps(inverse);
    if constexpr (Format::scale == ggml_scale::magnitude) {
        // Halves go away from 0, and what is just below a half must not: so less than a half is added.
        const __m512 value = rounded_product_avx512(x, scale);
        const __m512i sign =
            _mm512_and_si512(_mm512_castps_si512(value), _mm512_set1_epi32(INT32_MIN));
        const __m512i half = _mm512_castps_si512(_mm512_set1_ps(0x1.FFFFFEp-2F));
        const __m512 step = _mm512_castsi512_ps(_mm512_or_si512(sign, half));
        return _mm512_maskz_cvttps_epi32(0xFFFF, _mm512_add_ps(value, step));
    } else if constexpr (Format::scale == ggml_scale::table) {
        return ggml_table_codes_avx512(_mm512_mul_ps(x, scale));
    } else {
        const __m512 from_min = Format::has_min ? _mm512_sub_ps(x, _mm512_set1_ps(min)) : x;
        const __m512 code = _mm512_add_ps(rounded_product_avx512(from_min, scale),
                                          _mm512_set1_ps(Format::rounding));
        return _mm512_maskz_cvttps_epi32(0xFFFF, code);
    }
}

/// Codes of 32 channels.
struct ggml_codes_of_block_avx512 {
    __m512i low;
    __m512i high;
};

/// Codes of two blocks, of which the second one may be missing.
template <typename Format, bool Both>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
ggml_store_codes_avx512(const ggml_codes_of_block_avx512& first,
                        const ggml_codes_of_block_avx512& second,
                        std::byte* block) noexcept {
    std::byte* const out = block + Format::codes_at;
    const __m512i first_words = _mm512_packs_epi32(first.low, first.high);
    const __m512i second_words = _mm512_packs_epi32(second.low, second.high);
    // Of each 128 bits: four channels of the first block's lower half, its upper half, and likewise of the second.
    __m512i bytes = _mm512_packs_epi16(first_words, second_words);
    if constexpr (Format::bits == 8) {
        const __m512i order =
            _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        bytes = _mm512_maskz_permutexvar_epi32(0xFFFF, order, bytes);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                            _mm512_maskz_extracti32x8_epi32(0xFF, bytes, 0));
        if constexpr (Both) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + Format::bytes),
                                _mm512_maskz_extracti32x8_epi32(0xFF, bytes, 1));
        }
    } else {
        // Lower halves of both blocks, then upper halves.
        const __m512i order =
            _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15);
        bytes = _mm512_maskz_permutexvar_epi32(0xFFFF, order, bytes);
        if constexpr (Format::scale != ggml_scale::table) {
            bytes =
                _mm512_min_epu8(bytes, _mm512_set1_epi8(static_cast<char>(Format::num_codes - 1)));
        }
        if constexpr (Format::has_fifth_bits) {
            // Bit 4 of each byte becomes its sign; what crosses into the next byte lies below that.
            const std::uint64_t fifths = _mm512_movepi8_mask(_mm512_slli_epi16(bytes, 3));
            const auto of_first =
                static_cast<std::uint32_t>((fifths & 0xFFFFU) | (fifths >> 16 & 0xFFFF0000U));
            const auto of_second =
                static_cast<std::uint32_t>((fifths >> 16 & 0xFFFFU) | (fifths >> 32 & 0xFFFF0000U));
            std::memcpy(block + Format::fifth_bits_at, &of_first, sizeof of_first);
            if constexpr (Both) {
                std::memcpy(
                    block + Format::bytes + Format::fifth_bits_at, &of_second, sizeof of_second);
            }
            bytes = _mm512_and_si512(bytes, _mm512_set1_epi8(15));
        }
        const __m256i low = _mm512_maskz_extracti32x8_epi32(0xFF, bytes, 0);
        const __m256i high = _mm512_maskz_extracti32x8_epi32(0xFF, bytes, 1);
        const __m256i pairs = _mm256_or_si256(low, _mm256_slli_epi16(high, 4));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(pairs));
        if constexpr (Both) {
            _mm_storeu_si128(reinterpret_cast<__m128i*>(out + Format::bytes),
                             _mm256_extracti128_si256(pairs, 1));
        }
    }
}

/// `Blocks` blocks, 1 to 4; the last one fills the lanes of those that are missing.
/// @return false, with nothing written, if a magnitude is not below surely_held; of ranges, that must be known before
template <typename Format, std::size_t Blocks>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline bool
ggml_encode_few_avx512(const float* x, std::byte* out) noexcept {
    using order = ggml_orders<Format>;
    ggml_channels_avx512 channels[4];
    __m512 first[4];
    __m512 second[4];
#    pragma GCC unroll 4
    for (std::size_t b = 0; b < 4; ++b) {
        const float* const block = x + (std::min)(b, Blocks - 1) * ggml_block;
        channels[b] = {_mm512_loadu_ps(block), _mm512_loadu_ps(block + 16)};
        auto [low, high] = channels[b];
        if constexpr (Format::scale == ggml_scale::magnitude) {
            low = _mm512_abs_ps(low);
            high = _mm512_abs_ps(high);
        }
        first[b] = extremes_avx512<order::first>(low, high);
        second[b] = extremes_avx512<order::second>(low, high);
    }
    ggml_scales_avx2 scales;
    if (!scales.template find<Format>(x,
                                      Blocks,
                                      extreme_of_each_avx512<order::first>(first),
                                      extreme_of_each_avx512<order::second>(second))) {
        return false;
    }

    alignas(64) float weighted_x[4 * ggml_block];
    alignas(64) float squares[4 * ggml_block];
    ggml_codes_of_block_avx512 codes[4];
#    pragma GCC unroll 4
    for (std::size_t b = 0; b < 4; ++b) {
        const auto& [low, high] = channels[b];
        codes[b] = {ggml_codes_avx512<Format>(low, scales.min[b], scales.inverse[b]),
                    ggml_codes_avx512<Format>(high, scales.min[b], scales.inverse[b])};
        if constexpr (Format::scale == ggml_scale::table) {
            const __m512 table = ggml_table_avx512();
            const __m512 low_entry = _mm512_maskz_permutexvar_ps(0xFFFF, codes[b].low, table);
            const __m512 high_entry = _mm512_maskz_permutexvar_ps(0xFFFF, codes[b].high, table);
            const __m512 low_weighted = _mm512_mul_ps(_mm512_mul_ps(low, low), low_entry);
            const __m512 high_weighted = _mm512_mul_ps(_mm512_mul_ps(high, high), high_entry);
            const std::size_t at = b * ggml_block;
            _mm512_store_ps(weighted_x + at, rounded_product_avx512(low_weighted, low));
            _mm512_store_ps(weighted_x + at + 16, rounded_product_avx512(high_weighted, high));
            _mm512_store_ps(squares + at, rounded_product_avx512(low_weighted, low_entry));
            _mm512_store_ps(squares + at + 16, rounded_product_avx512(high_weighted, high_entry));
        }
    }
    ggml_store_codes_avx512<Format, (Blocks > 1)>(codes[0], codes[1], out);
    if constexpr (Blocks > 2) {
        ggml_store_codes_avx512<Format, (Blocks > 3)>(codes[2], codes[3], out + 2 * Format::bytes);
    }
    if constexpr (Format::scale == ggml_scale::table) {
        scales.fit(weighted_x, squares);
    }
    scales.store<Format, Blocks>(out);
    return true;
}

/// @return false, with nothing written, if a row of up to 4 blocks has a magnitude that is not below surely_held; of
///         longer rows, and of ranges, that must be known before
template <typename Format>
KVCRUSH_TARGET_AVX512 inline bool
ggml_encode_avx512(const float* x, std::size_t num_blocks, std::byte* out) noexcept {
    bool stored = true;
    for (; num_blocks >= 4; num_blocks -= 4, x += 4 * ggml_block, out += 4 * Format::bytes) {
        stored = ggml_encode_few_avx512<Format, 4>(x, out);
    }
    switch (num_blocks) {
    case 3: return ggml_encode_few_avx512<Format, 3>(x, out);
    case 2: return ggml_encode_few_avx512<Format, 2>(x, out);
    case 1: return ggml_encode_few_avx512<Format, 1>(x, out);
    default: return stored;
    }
}

/// 16 floats of which the code chooses: what it stands for, without d and min.
template <typename Format>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512 ggml_levels_avx512() noexcept {
    if constexpr (Format::scale == ggml_scale::table) {
        return ggml_table_avx512();
    } else {
        const __m512 codes = _mm512_setr_ps(0.0F,
                                            1.0F,
                                            2.0F,
                                            3.0F,
                                            4.0F,
                                            5.0F,
                                            6.0F,
                                            7.0F,
                                            8.0F,
                                            9.0F,
                                            10.0F,
                                            11.0F,
                                            12.0F,
                                            13.0F,
                                            14.0F,
                                            15.0F);
        return _mm512_sub_ps(codes, _mm512_set1_ps(static_cast<float>(Format::zero_code)));
    }
}

template <typename Format>
KVCRUSH_TARGET_AVX512 inline void
ggml_decode_avx512(const std::byte* in, std::size_t num_blocks, float* out) noexcept {
    const __m512 levels = ggml_levels_avx512<Format>();
    for (std::size_t b = 0; b < num_blocks; ++b, in += Format::bytes, out += ggml_block) {
        const __m512 d = _mm512_set1_ps(load_f16_avx2(in));
        const auto* const codes = reinterpret_cast<const __m128i*>(in + Format::codes_at);
        if constexpr (Format::bits == 8) {
            for (std::size_t half = 0; half < 2; ++half) {
                const __m512i values =
                    _mm512_maskz_cvtepi8_epi32(0xFFFF, _mm_loadu_si128(codes + half));
                _mm512_storeu_ps(out + 16 * half,
                                 _mm512_mul_ps(d, _mm512_maskz_cvtepi32_ps(0xFFFF, values)));
            }
        } else {
            // A permutation sees the lowest four bits (five with two tables) of an index only.
            const __m512i both = _mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128(codes));
            __m512 scaled = _mm512_mul_ps(d, levels);
            if constexpr (Format::has_min) {
                scaled = _mm512_add_ps(scaled, _mm512_set1_ps(load_f16_avx2(in + 2)));
            }
            const __m512i high_codes = _mm512_maskz_srli_epi32(0xFFFF, both, 4);
            if constexpr (!Format::has_fifth_bits) {
                _mm512_storeu_ps(out, _mm512_maskz_permutexvar_ps(0xFFFF, both, scaled));
                _mm512_storeu_ps(out + 16, _mm512_maskz_permutexvar_ps(0xFFFF, high_codes, scaled));
            } else {
                std::uint32_t fifths = 0;
                std::memcpy(&fifths, in + Format::fifth_bits_at, sizeof fifths);
                const __m512i fifth = _mm512_set1_epi32(16);
                __m512 upper = _mm512_mul_ps(d, _mm512_add_ps(levels, _mm512_set1_ps(16.0F)));
                if constexpr (Format::has_min) {
                    upper = _mm512_add_ps(upper, _mm512_set1_ps(load_f16_avx2(in + 2)));
                }
                const __m512i four = _mm512_and_si512(both, _mm512_set1_epi32(15));
                const __m512i low =
                    _mm512_mask_or_epi32(four, static_cast<__mmask16>(fifths), four, fifth);
                const __m512i high = _mm512_mask_or_epi32(
                    high_codes, static_cast<__mmask16>(fifths >> 16), high_codes, fifth);
                _mm512_storeu_ps(out, _mm512_permutex2var_ps(scaled, low, upper));
                _mm512_storeu_ps(out + 16, _mm512_permutex2var_ps(scaled, high, upper));
            }
        }
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush

#endif // KVCRUSH_X86_DISPATCH
