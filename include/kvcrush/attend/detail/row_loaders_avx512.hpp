// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rows of single codecs as vectors of 16 floats, read as they are stored.
///
/// A loader brings 32 channels at a time, the block of most formats: load() at a multiple of 32, load_first() the ones
/// that are left at the end of a row. What a whole row is multiplied with (its gain) is left out where a loader says so,
/// and belongs into logits and weights.
#pragma once

#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/codec/codebook_row.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/detail/convert_avx.hpp>
#include <kvcrush/simd/detail/lanes.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Channels c ... c + 15 and c + 16 ... c + 31.
struct channels_avx512 {
    __m512 low, high;
};

/// The lanes of 16 that are left where `rest` channels are.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __mmask16
rest_lanes_avx512(std::size_t rest, std::size_t first) noexcept {
    return rest <= first        ? __mmask16{0}
           : rest - first >= 16 ? static_cast<__mmask16>(0xFFFF)
                                : simd::detail::first_lanes_avx512(rest - first);
}

template <typename T>
struct dense_rows_avx512 {
    static constexpr bool has_gain = false;
    /// Where channel c begins; for c = dim the length of a row [bytes].
    static constexpr std::size_t offset(std::size_t c) noexcept { return c * sizeof(T); }

    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static __m512 widen(const T* from) noexcept {
        if constexpr (std::is_same_v<T, float>) {
            return _mm512_loadu_ps(from);
        } else {
            return simd::detail::widen_avx512<T>(
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
        }
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static __m512 widen(const T* from,
                                                                     __mmask16 lanes) noexcept {
        if constexpr (std::is_same_v<T, float>) {
            return _mm512_maskz_loadu_ps(lanes, from);
        } else {
            return simd::detail::widen_avx512<T>(_mm256_maskz_loadu_epi16(lanes, from));
        }
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static channels_avx512
    load(const std::byte* row, std::size_t c) noexcept {
        const T* const from = reinterpret_cast<const T*>(row) + c;
        return {widen(from), widen(from + 16)};
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static channels_avx512
    load_first(const std::byte* row, std::size_t c, std::size_t rest) noexcept {
        const T* const from = reinterpret_cast<const T*>(row) + c;
        return {widen(from, rest_lanes_avx512(rest, 0)),
                widen(from + 16, rest_lanes_avx512(rest, 16))};
    }
};

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512
widen_int8_avx512(__m128i codes) noexcept {
    return _mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_maskz_cvtepi8_epi32(0xFFFF, codes));
}

/// float scale, then signed bytes.
struct int8_rows_avx512 {
    static constexpr bool has_gain = true;
    static constexpr std::size_t offset(std::size_t c) noexcept { return c + sizeof(float); }
    static float gain(const std::byte* row) noexcept {
        float scale = 0.0F;
        std::memcpy(&scale, row, sizeof scale);
        return scale;
    }
    /// [attend_tile], zeros behind the rows.
    static void gains(const tile_rows& rows, std::size_t, float* out) noexcept {
        for (std::size_t t = 0; t < rows.count; ++t) {
            out[t] = gain(rows.group[t]);
        }
        std::fill(out + rows.count, out + attend_tile, 0.0F);
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static channels_avx512
    load(const std::byte* row, std::size_t c) noexcept {
        const std::byte* const from = row + sizeof(float) + c;
        return {widen_int8_avx512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))),
                widen_int8_avx512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 16)))};
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static channels_avx512
    load_first(const std::byte* row, std::size_t c, std::size_t rest) noexcept {
        const std::byte* const from = row + sizeof(float) + c;
        return {widen_int8_avx512(_mm_maskz_loadu_epi8(rest_lanes_avx512(rest, 0), from)),
                widen_int8_avx512(_mm_maskz_loadu_epi8(rest_lanes_avx512(rest, 16), from + 16))};
    }
};

/// The f16 that a block of ggml begins with.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512
block_scale_avx512(const std::byte* block) noexcept {
    std::uint16_t bits = 0;
    std::memcpy(&bits, block, sizeof bits);
    return _mm512_maskz_broadcastss_ps(0xFFFF, _mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}

/// Blocks of 32 channels: f16 scale, 32 signed bytes.
struct q8_0_rows_avx512 {
    static constexpr bool has_gain = false;
    static constexpr std::size_t offset(std::size_t c) noexcept { return c / 32 * 34; }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static channels_avx512
    load(const std::byte* row, std::size_t c) noexcept {
        const std::byte* const block = row + offset(c);
        const __m512 scale = block_scale_avx512(block);
        const auto* const codes = reinterpret_cast<const __m128i*>(block + 2);
        return {_mm512_mul_ps(scale, widen_int8_avx512(_mm_loadu_si128(codes))),
                _mm512_mul_ps(scale, widen_int8_avx512(_mm_loadu_si128(codes + 1)))};
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static channels_avx512
    load_first(const std::byte* row, std::size_t c, std::size_t) noexcept {
        return load(row, c);
    }
};

/// Blocks of 32 channels: f16 scale, 16 bytes with channel j in the low half of byte j and j + 16 in the high half,
/// which stand for -8 ... 7.
struct q4_0_rows_avx512 {
    static constexpr bool has_gain = false;
    static constexpr std::size_t offset(std::size_t c) noexcept { return c / 32 * 18; }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static channels_avx512
    load(const std::byte* row, std::size_t c) noexcept {
        const std::byte* const block = row + offset(c);
        const __m512 scale = block_scale_avx512(block);
        const __m512i codes = _mm512_maskz_cvtepu8_epi32(
            0xFFFF, _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 2)));
        // Values of all 16 codes, looked up: vpermps takes the low four bits of each lane as its index.
        const __m512 table = _mm512_setr_ps(-8.0F,
                                            -7.0F,
                                            -6.0F,
                                            -5.0F,
                                            -4.0F,
                                            -3.0F,
                                            -2.0F,
                                            -1.0F,
                                            0.0F,
                                            1.0F,
                                            2.0F,
                                            3.0F,
                                            4.0F,
                                            5.0F,
                                            6.0F,
                                            7.0F);
        const __m512 scaled = _mm512_mul_ps(table, scale);
        return {
            _mm512_maskz_permutexvar_ps(0xFFFF, codes, scaled),
            _mm512_maskz_permutexvar_ps(0xFFFF, _mm512_maskz_srli_epi32(0xFFFF, codes, 4), scaled)};
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static channels_avx512
    load_first(const std::byte* row, std::size_t c, std::size_t) noexcept {
        return load(row, c);
    }
};

/// Blocks of 32 channels: f16 scale, f16 minimum, the fifth bits of all codes, then the lower four as in q4_0.
struct q5_1_rows_avx512 {
    static constexpr bool has_gain = false;
    static constexpr std::size_t offset(std::size_t c) noexcept { return c / 32 * 24; }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static channels_avx512
    load(const std::byte* row, std::size_t c) noexcept {
        const std::byte* const block = row + offset(c);
        const __m512 scale = block_scale_avx512(block);
        const __m512 minimum = block_scale_avx512(block + 2);
        std::uint32_t fifth = 0;
        std::memcpy(&fifth, block + 4, sizeof fifth);
        const __m512i both = _mm512_maskz_cvtepu8_epi32(
            0xFFFF, _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 8)));
        const __m512i low = _mm512_and_si512(both, _mm512_set1_epi32(15));
        const __m512i high = _mm512_maskz_srli_epi32(0xFFFF, both, 4);
        const __m512i sixteen = _mm512_set1_epi32(16);
        const auto first = static_cast<__mmask16>(fifth);
        const auto second = static_cast<__mmask16>(fifth >> 16);
        return {_mm512_fmadd_ps(_mm512_maskz_cvtepi32_ps(
                                    0xFFFF, _mm512_mask_or_epi32(low, first, low, sixteen)),
                                scale,
                                minimum),
                _mm512_fmadd_ps(_mm512_maskz_cvtepi32_ps(
                                    0xFFFF, _mm512_mask_or_epi32(high, second, high, sixteen)),
                                scale,
                                minimum)};
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static channels_avx512
    load_first(const std::byte* row, std::size_t c, std::size_t) noexcept {
        return load(row, c);
    }
};

/// factor times the f16 that each row begins with, [attend_tile], zeros behind the rows.
KVCRUSH_TARGET_AVX512 inline void
first_halves_avx512(const tile_rows& rows, float factor, float* out) noexcept {
    const auto half = [&](std::size_t t) {
        std::uint16_t bits = 0;
        std::memcpy(&bits, rows.group[t], sizeof bits);
        return bits;
    };
    const __m512 by = _mm512_set1_ps(factor);
    for (std::size_t t = 0; t < attend_tile; t += 16) {
        __m128i eight[2] = {};
        for (std::size_t k = 0; k < 2; ++k) {
            const std::size_t u = t + 8 * k;
            if (u >= rows.count) {
                break;
            }
            __m128i x = _mm_cvtsi32_si128(half(u));
            x = _mm_insert_epi16(x, half(u + 1), 1);
            x = _mm_insert_epi16(x, half(u + 2), 2);
            x = _mm_insert_epi16(x, half(u + 3), 3);
            x = _mm_insert_epi16(x, half(u + 4), 4);
            x = _mm_insert_epi16(x, half(u + 5), 5);
            x = _mm_insert_epi16(x, half(u + 6), 6);
            eight[k] = _mm_insert_epi16(x, half(u + 7), 7);
        }
        const __m256i some = _mm256_inserti128_si256(_mm256_castsi128_si256(eight[0]), eight[1], 1);
        const __mmask16 lanes = rest_lanes_avx512(rows.count, t);
        _mm512_storeu_ps(out + t,
                         _mm512_maskz_mul_ps(lanes, by, _mm512_maskz_cvtph_ps(0xFFFF, some)));
    }
}

/// f16 norm, then Bits bits for each channel, an index of centroids.
template <std::size_t Bits>
struct codebook_rows_avx512 {
    static constexpr bool has_gain = true;
    static constexpr std::size_t offset(std::size_t c) noexcept { return c * Bits / 8 + 2; }
    static void gains(const tile_rows& rows, std::size_t dim, float* out) noexcept {
        first_halves_avx512(rows, 1.0F / std::sqrt(static_cast<float>(dim)), out);
    }

    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static __m512
    look_up(const std::byte* codes) noexcept {
        namespace simd = simd::detail;
        return simd::look_up_avx512<Bits>(
            simd::load_table_avx512<Bits>(gaussian_codebook<Bits>.values.data(), 1.0F),
            simd::load_codes_avx512<Bits>(codes));
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static channels_avx512
    load(const std::byte* row, std::size_t c) noexcept {
        const std::byte* const codes = row + offset(c);
        return {look_up(codes), look_up(codes + 2 * Bits)};
    }
    /// Channels behind the rest are those of code 0: callers mask them.
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static channels_avx512
    load_first(const std::byte* row, std::size_t c, std::size_t rest) noexcept {
        std::byte codes[4 * Bits] = {};
        std::memcpy(codes, row + offset(c), (Bits * rest + 7) / 8);
        return {look_up(codes), look_up(codes + 2 * Bits)};
    }
};

} // namespace detail
} // namespace v0
} // namespace kvcrush
#endif
