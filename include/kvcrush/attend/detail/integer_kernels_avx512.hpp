// SPDX-License-Identifier: Apache-2.0
/// @file
/// Attention over codes of 8 and 4 bits in integer arithmetic, on AVX-512 (dpbusd: 64 products of bytes and
/// their sums in one instruction) and VBMI (vpermb).
///
/// Queries and weights are rounded to whole multiples of a step: 16 bits beside codes of 8 bits, 12 bits beside codes
/// of 4 bits, in two parts of a byte each. Sums are exact from there on. With q the largest |query| channel of a row and
/// w the largest weight times the largest |scale| of a tile, errors are at most
///     logit       q / 65024 (8 bits) or q / 4064 (4 bits) times sum |k|
///     output      w / 131070 (8 bits) or w / 4094 (4 bits) times sum over the tile of |code|
///
/// Four rows lie side by side in a register, 16 bytes of each. Products with keys are summed over the channels of each
/// row, 4 lanes a row. For values, vpermb brings the bytes of one channel together.
#pragma once

#include <kvcrush/attend/detail/tile_kernels_avx512.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/detail/lanes.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Longest row whose integer sums are sure to fit 32 bits.
inline constexpr std::size_t integer_max_dim = 512;
inline constexpr std::size_t integer_max_blocks = integer_max_dim / 32;

/// float scale, then signed bytes.
struct int8_codes {
    static constexpr bool has_blocks = false;
    static constexpr std::size_t bits = 8;
    static constexpr std::size_t offset(std::size_t c) noexcept { return c + sizeof(float); }
    static std::size_t block(std::size_t dim) noexcept { return dim; }
    static float scale(const std::byte* row) noexcept { return int8_rows_avx512::gain(row); }
};

/// f16 scale and 32 signed bytes.
struct q8_0_codes {
    static constexpr bool has_blocks = true;
    static constexpr std::size_t bits = 8;
    static constexpr std::size_t bytes = 34;
    static constexpr std::size_t offset(std::size_t c) noexcept { return c / 32 * 34 + 2 + c % 32; }
    static std::size_t block(std::size_t) noexcept { return 32; }
};

/// f16 scale and 16 bytes with two channels each.
struct q4_0_codes {
    static constexpr bool has_blocks = true;
    static constexpr std::size_t bits = 4;
    static constexpr std::size_t bytes = 18;
    static constexpr std::size_t offset(std::size_t c) noexcept { return c / 32 * 18 + 2; }
    static std::size_t block(std::size_t) noexcept { return 32; }
};

/// Queries as integers, one after the other:
///     float step, 12 bytes unused
///     per block: 16 high parts and 16 low parts for each 16 channels; 4 x int32 that correct for codes being unsigned
template <typename Codes>
struct integer_queries {
    /// A query is step * (base * high + low).
    static constexpr int base = Codes::bits == 8 ? 256 : 16;
    static constexpr int most = 127 * base;
    /// What is added to a code to make it unsigned.
    static constexpr int shift = Codes::bits == 8 ? 128 : 8;

    static constexpr std::size_t block_bytes(std::size_t block) noexcept { return 2 * block + 16; }
    static std::size_t query_bytes(std::size_t dim) noexcept {
        const std::size_t block = Codes::block(dim);
        return 16 + dim / block * block_bytes(block);
    }

    KVCRUSH_TARGET_AVX512 static void prepare(const float* queries,
                                              std::size_t num_queries,
                                              std::size_t dim,
                                              std::byte* out) noexcept {
        constexpr unsigned places = Codes::bits == 8 ? 8 : 4;
        const std::size_t block = Codes::block(dim);
        for (std::size_t q = 0; q < num_queries; ++q, queries += dim) {
            __m512 high = _mm512_setzero_ps();
            for (std::size_t c = 0; c < dim; c += 16) {
                high =
                    _mm512_maskz_max_ps(0xFFFF, high, _mm512_abs_ps(_mm512_loadu_ps(queries + c)));
            }
            const float step = simd::detail::largest_lane_avx512(high) / static_cast<float>(most);
            // A step that is subnormal has no finite inverse.
            const bool counts = step >= 0x1p-126F;
            std::memcpy(out, &step, sizeof step);
            const __m512 per_step = _mm512_set1_ps(counts ? 1.0F / step : 0.0F);
            out += 16;
            for (std::size_t first = 0; first < dim; first += block) {
                __m512i sum = _mm512_setzero_si512();
                for (std::size_t c = first; c < first + block; c += 16) {
                    __m512i whole = _mm512_maskz_cvtps_epi32(
                        0xFFFF, _mm512_mul_ps(_mm512_loadu_ps(queries + c), per_step));
                    whole = _mm512_maskz_min_epi32(0xFFFF, whole, _mm512_set1_epi32(most));
                    whole = _mm512_maskz_max_epi32(0xFFFF, whole, _mm512_set1_epi32(-most));
                    // Rounded to nearest, so that the low part is within [-base / 2, base / 2).
                    const __m512i upper = _mm512_maskz_srai_epi32(
                        0xFFFF, _mm512_add_epi32(whole, _mm512_set1_epi32(base / 2)), places);
                    const __m512i lower =
                        _mm512_sub_epi32(whole, _mm512_maskz_slli_epi32(0xFFFF, upper, places));
                    sum = _mm512_add_epi32(sum, whole);
                    auto* const to = reinterpret_cast<__m128i*>(out + 2 * (c - first));
                    _mm_storeu_si128(to, _mm512_maskz_cvtepi32_epi8(0xFFFF, upper));
                    _mm_storeu_si128(to + 1, _mm512_maskz_cvtepi32_epi8(0xFFFF, lower));
                }
                std::int32_t lanes[16];
                _mm512_storeu_si512(lanes, sum);
                std::int32_t correction[4];
                for (std::size_t i = 0; i < 4; ++i) {
                    correction[i] = -shift * (lanes[4 * i] + lanes[4 * i + 1] + lanes[4 * i + 2] +
                                              lanes[4 * i + 3]);
                }
                std::memcpy(out + 2 * block, correction, sizeof correction);
                out += block_bytes(block);
            }
        }
    }
};

/// Scales of each block [block][attend_tile], zeros behind the rows.
template <typename Codes>
KVCRUSH_TARGET_AVX512 inline void
gather_block_scales(const tile_rows& rows, std::size_t num_blocks, float* out) noexcept {
    // All of them first: a vector that is loaded right behind its elements would wait for their stores.
    std::uint16_t halves[integer_max_blocks][attend_tile];
    for (std::size_t b = 0; b < num_blocks; ++b) {
        std::fill(halves[b] + rows.count, halves[b] + attend_tile, std::uint16_t{0});
    }
    for (std::size_t t = 0; t < rows.count; ++t) {
        const std::byte* from = rows.group[t];
        for (std::size_t b = 0; b < num_blocks; ++b, from += Codes::bytes) {
            std::memcpy(&halves[b][t], from, sizeof halves[b][t]);
        }
    }
    for (std::size_t b = 0; b < num_blocks; ++b) {
        for (std::size_t t = 0; t < attend_tile; t += 16) {
            const __m256i some =
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves[b] + t));
            _mm512_storeu_ps(out + b * attend_tile + t, _mm512_maskz_cvtph_ps(0xFFFF, some));
        }
    }
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m128i
sixteen_bytes(const std::byte* from) noexcept {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

/// 16 bytes from `offset` on of four rows.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i four_rows(const std::byte* const* rows,
                                                                      std::size_t offset) noexcept {
    const __m256i low =
        _mm256_inserti128_si256(_mm256_castsi128_si256(sixteen_bytes(rows[0] + offset)),
                                sixteen_bytes(rows[1] + offset),
                                1);
    const __m256i high =
        _mm256_inserti128_si256(_mm256_castsi128_si256(sixteen_bytes(rows[2] + offset)),
                                sixteen_bytes(rows[3] + offset),
                                1);
    return _mm512_maskz_inserti64x4(0xFF, _mm512_castsi256_si512(low), high, 1);
}

/// 16 sums. Not __m512i: GCC 12 copies those around each dpbusd, whose operands are of another type.
using sums_of_bytes = int __attribute__((vector_size(64)));

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
add_products_of_bytes(sums_of_bytes& sums, __m512i without_sign, __m512i with_sign) noexcept {
    sums = reinterpret_cast<sums_of_bytes>(
        _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sums), without_sign, with_sign));
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512
whole_floats(sums_of_bytes sums) noexcept {
    return _mm512_maskz_cvtepi32_ps(0xFFFF, reinterpret_cast<__m512i>(sums));
}

/// 16 bytes, four times.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
four_times(const std::byte* from) noexcept {
    return _mm512_maskz_broadcast_i32x4(0xFFFF, sixteen_bytes(from));
}

/// Sums of four vectors s[query] over the four lanes of each row, in lane 4 * query + row.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512
add_row_lanes(__m512 s0, __m512 s1, __m512 s2, __m512 s3) noexcept {
    const __m512 a =
        _mm512_add_ps(_mm512_mask_blend_ps(0xCCCC, s0, s1), _mm512_shuffle_ps(s0, s1, 0x4E));
    const __m512 b =
        _mm512_add_ps(_mm512_mask_blend_ps(0xCCCC, s2, s3), _mm512_shuffle_ps(s2, s3, 0x4E));
    const __m512 by_row =
        _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD));
    const __m512i by_query =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_maskz_permutexvar_ps(0xFFFF, by_query, by_row);
}

/// One value of `scales` for each row, in its four lanes.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512
row_scales(const float* scales) noexcept {
    const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_maskz_permutexvar_ps(
        0xFFFF, lane, _mm512_maskz_broadcast_f32x4(0xFFFF, _mm_loadu_ps(scales)));
}

/// Rows t ... t + 7 with sizeof...(Is) / 2 queries; Is is 2 * query + half of the rows.
template <typename Codes, std::size_t... Is>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
integer_dots_block(const tile_rows& rows,
                   std::size_t t,
                   const std::byte* const* queries,
                   __m512 steps,
                   std::size_t dim,
                   const float* scales,
                   float* out,
                   std::index_sequence<Is...>) noexcept {
    constexpr std::size_t num_queries = sizeof...(Is) / 2;
    const std::byte* const* const r = rows.group + t;
    const std::size_t block = Codes::block(dim);
    const __m512 zero = _mm512_setzero_ps();
    __m512 sums[8] = {zero, zero, zero, zero, zero, zero, zero, zero};
    std::size_t at = 16;
    for (std::size_t first = 0, b = 0; first < dim; first += block, ++b) {
        sums_of_bytes low[sizeof...(Is)];
        const std::size_t correction = at + 2 * block;
        ((low[Is] = reinterpret_cast<sums_of_bytes>(four_times(queries[Is / 2] + correction))),
         ...);
        if constexpr (Codes::bits == 8) {
            sums_of_bytes high[sizeof...(Is)];
            ((high[Is] = sums_of_bytes{}), ...);
            const __m512i flip = _mm512_set1_epi32(static_cast<int>(0x80808080U));
            for (std::size_t c = first; c < first + block; c += 16, at += 32) {
                const __m512i k[2] = {_mm512_xor_si512(four_rows(r, Codes::offset(c)), flip),
                                      _mm512_xor_si512(four_rows(r + 4, Codes::offset(c)), flip)};
                ((add_products_of_bytes(high[Is], k[Is % 2], four_times(queries[Is / 2] + at))),
                 ...);
                ((add_products_of_bytes(low[Is], k[Is % 2], four_times(queries[Is / 2] + at + 16))),
                 ...);
            }
            ((low[Is] += high[Is] << 8), ...);
        } else {
            const __m512i lower = _mm512_set1_epi8(0x0F);
            const __m512i upper = _mm512_set1_epi8(static_cast<char>(0xF0));
            const __m512i x[2] = {four_rows(r, Codes::offset(first)),
                                  four_rows(r + 4, Codes::offset(first))};
            const __m512i one[2] = {_mm512_and_si512(x[0], lower), _mm512_and_si512(x[1], lower)};
            const __m512i sixteen[2] = {
                _mm512_and_si512(_mm512_maskz_slli_epi16(~0U, x[0], 4), upper),
                _mm512_and_si512(_mm512_maskz_slli_epi16(~0U, x[1], 4), upper)};
            ((add_products_of_bytes(low[Is], sixteen[Is % 2], four_times(queries[Is / 2] + at))),
             ...);
            ((add_products_of_bytes(low[Is], one[Is % 2], four_times(queries[Is / 2] + at + 16))),
             ...);
            const __m512i one_of_high[2] = {
                _mm512_and_si512(_mm512_maskz_srli_epi16(~0U, x[0], 4), lower),
                _mm512_and_si512(_mm512_maskz_srli_epi16(~0U, x[1], 4), lower)};
            const __m512i sixteen_of_high[2] = {_mm512_and_si512(x[0], upper),
                                                _mm512_and_si512(x[1], upper)};
            ((add_products_of_bytes(
                 low[Is], sixteen_of_high[Is % 2], four_times(queries[Is / 2] + at + 32))),
             ...);
            ((add_products_of_bytes(
                 low[Is], one_of_high[Is % 2], four_times(queries[Is / 2] + at + 48))),
             ...);
            at += 64;
        }
        at += 16;
        if constexpr (Codes::has_blocks) {
            const __m512 factors[2] = {row_scales(scales + b * attend_tile + t),
                                       row_scales(scales + b * attend_tile + t + 4)};
            ((sums[Is] = _mm512_fmadd_ps(whole_floats(low[Is]), factors[Is % 2], sums[Is])), ...);
        } else {
            ((sums[Is] = whole_floats(low[Is])), ...);
        }
    }
    __m512 first = _mm512_mul_ps(steps, add_row_lanes(sums[0], sums[2], sums[4], sums[6]));
    __m512 second = _mm512_mul_ps(steps, add_row_lanes(sums[1], sums[3], sums[5], sums[7]));
    if constexpr (!Codes::has_blocks) {
        first =
            _mm512_mul_ps(first, _mm512_maskz_broadcast_f32x4(0xFFFF, _mm_loadu_ps(scales + t)));
        second = _mm512_mul_ps(second,
                               _mm512_maskz_broadcast_f32x4(0xFFFF, _mm_loadu_ps(scales + t + 4)));
    }
    store_logits_avx512<num_queries>(first, out + t);
    store_logits_avx512<num_queries>(second, out + t + 4);
}

template <typename Codes, std::size_t Queries>
KVCRUSH_TARGET_AVX512 inline void integer_dots_tile(const tile_rows& rows,
                                                    const std::byte* queries,
                                                    std::size_t dim,
                                                    const float* scales,
                                                    bool prefetch,
                                                    float* out) noexcept {
    const std::size_t stride = integer_queries<Codes>::query_bytes(dim);
    const std::byte* each[4] = {};
    alignas(64) float steps[16] = {};
    for (std::size_t q = 0; q < Queries; ++q) {
        each[q] = queries + q * stride;
        float step = 0.0F;
        std::memcpy(&step, each[q], sizeof step);
        std::fill_n(steps + 4 * q, 4, step);
    }
    const std::size_t row_bytes = prefetch ? Codes::offset(dim) : 0;
    for (std::size_t t = 0; t < rows.count; t += 8) {
        for (std::size_t i = t; i < t + 8; ++i) {
            prefetch_row(rows, i, 0, row_bytes);
        }
        integer_dots_block<Codes>(rows,
                                  t,
                                  each,
                                  _mm512_load_ps(steps),
                                  dim,
                                  scales,
                                  out,
                                  std::make_index_sequence<2 * Queries>());
    }
}

template <typename Codes>
KVCRUSH_TARGET_AVX512 inline void
tile_scales(const tile_rows& rows, std::size_t dim, float* scales) noexcept {
    if constexpr (Codes::has_blocks) {
        gather_block_scales<Codes>(rows, dim / 32, scales);
    } else {
        for (std::size_t t = 0; t < rows.count; ++t) {
            scales[t] = Codes::scale(rows.group[t]);
        }
        std::fill(scales + rows.count, scales + attend_tile, 0.0F);
    }
}

/// @param queries  as integer_queries<Codes> prepared them
template <typename Codes>
KVCRUSH_TARGET_AVX512 inline void integer_dots(const tile_rows& rows,
                                               const std::byte* queries,
                                               std::size_t num_queries,
                                               std::size_t dim,
                                               float* out) noexcept {
    alignas(64) float scales[(Codes::has_blocks ? integer_max_blocks : 1) * attend_tile];
    tile_scales<Codes>(rows, dim, scales);
    const std::size_t stride = integer_queries<Codes>::query_bytes(dim);
    for (std::size_t q = 0; q < num_queries; q += 4) {
        const std::byte* const from = queries + q * stride;
        float* const to = out + q * attend_tile;
        switch (num_queries - q) {
        case 1: integer_dots_tile<Codes, 1>(rows, from, dim, scales, q == 0, to); break;
        case 2: integer_dots_tile<Codes, 2>(rows, from, dim, scales, q == 0, to); break;
        case 3: integer_dots_tile<Codes, 3>(rows, from, dim, scales, q == 0, to); break;
        default: integer_dots_tile<Codes, 4>(rows, from, dim, scales, q == 0, to); break;
        }
    }
}

/// Weights of a tile as integers for up to four queries, with the scales of one block in them.
struct integer_weights {
    alignas(64) std::uint8_t high[4 * attend_tile];
    alignas(64) std::uint8_t low[4 * attend_tile];
    float step[4];
    std::int32_t sum[4]; ///< of base * high + low
};

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline float
largest_magnitude_of_tile(const float* values) noexcept {
    __m512 high = _mm512_setzero_ps();
    for (std::size_t t = 0; t < attend_tile; t += 16) {
        high = _mm512_maskz_max_ps(0xFFFF, high, _mm512_abs_ps(_mm512_loadu_ps(values + t)));
    }
    return simd::detail::largest_lane_avx512(high);
}

/// 8 bits: codes are signed, weights are not and have 16 bits. 4 bits: scales may be negative, so weights have a sign
/// and 12 bits with it.
/// @param weights  [queries][attend_tile], 0 behind the rows
/// @param scales   [attend_tile]
/// @param bounds   [queries], no product of weight and scale is larger
template <typename Codes>
KVCRUSH_TARGET_AVX512 inline void round_weights(const float* weights,
                                                const float* scales,
                                                const float* bounds,
                                                std::size_t num_queries,
                                                integer_weights& out) noexcept {
    constexpr float most = Codes::bits == 8 ? 65535.0F : 2047.0F;
    for (std::size_t q = 0; q < num_queries; ++q) {
        // Bounds that are tiny would have an infinite inverse; such a tile adds nothing that a float can tell.
        const bool adds = bounds[q] > 0x1p-100F;
        const float per_step = adds ? most / bounds[q] : 0.0F;
        out.step[q] = adds ? bounds[q] / most : 0.0F;
        const __m512 factor = _mm512_set1_ps(per_step);
        __m512i sum = _mm512_setzero_si512();
        for (std::size_t t = 0; t < attend_tile; t += 16) {
            const __m512 x =
                _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(weights + q * attend_tile + t), factor),
                              _mm512_loadu_ps(scales + t));
            __m512i whole = _mm512_maskz_cvtps_epi32(0xFFFF, x);
            __m512i high = whole;
            if constexpr (Codes::bits == 8) {
                whole = _mm512_maskz_min_epi32(0xFFFF, whole, _mm512_set1_epi32(65535));
                high = _mm512_maskz_srli_epi32(0xFFFF, whole, 8);
            } else {
                high = _mm512_maskz_srai_epi32(0xFFFF, whole, 4);
                sum = _mm512_add_epi32(sum, whole);
                whole = _mm512_and_si512(whole, _mm512_set1_epi32(15));
            }
            _mm_store_si128(reinterpret_cast<__m128i*>(out.high + q * attend_tile + t),
                            _mm512_maskz_cvtepi32_epi8(0xFFFF, high));
            _mm_store_si128(reinterpret_cast<__m128i*>(out.low + q * attend_tile + t),
                            _mm512_maskz_cvtepi32_epi8(0xFFFF, whole));
        }
        if constexpr (Codes::bits == 4) {
            const __m256i half = _mm256_add_epi32(_mm512_maskz_extracti32x8_epi32(0xFF, sum, 0),
                                                  _mm512_maskz_extracti32x8_epi32(0xFF, sum, 1));
            __m128i quarter =
                _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
            quarter = _mm_add_epi32(quarter, _mm_shuffle_epi32(quarter, 0x4E));
            quarter = _mm_add_epi32(quarter, _mm_shuffle_epi32(quarter, 0xB1));
            out.sum[q] = _mm_cvtsi128_si32(quarter);
        }
    }
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
four_weights(const std::uint8_t* from) noexcept {
    std::int32_t bytes = 0;
    std::memcpy(&bytes, from, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

/// Up to 32 channels from c on. Is is Chunks * query + which 16 of the channels.
template <typename Codes, std::size_t Chunks, std::size_t... Is>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
integer_accumulate_block(const tile_rows& rows,
                         const integer_weights& weights,
                         std::size_t c,
                         std::size_t dim,
                         bool prefetch,
                         float* out,
                         std::index_sequence<Is...>) noexcept {
    // Byte r of dword i comes from byte i of row r.
    const __m512i by_channel = _mm512_add_epi8(_mm512_set1_epi32(0x30201000),
                                               _mm512_setr_epi32(0x00000000,
                                                                 0x01010101,
                                                                 0x02020202,
                                                                 0x03030303,
                                                                 0x04040404,
                                                                 0x05050505,
                                                                 0x06060606,
                                                                 0x07070707,
                                                                 0x08080808,
                                                                 0x09090909,
                                                                 0x0A0A0A0A,
                                                                 0x0B0B0B0B,
                                                                 0x0C0C0C0C,
                                                                 0x0D0D0D0D,
                                                                 0x0E0E0E0E,
                                                                 0x0F0F0F0F));
    const std::size_t first = prefetch ? Codes::offset(c) : 0;
    const std::size_t last = prefetch ? Codes::offset(c + 16 * Chunks - 1) + 1 : 0;
    sums_of_bytes low[sizeof...(Is)];
    if constexpr (Codes::bits == 8) {
        ((low[Is] = sums_of_bytes{}), ...);
        sums_of_bytes high[sizeof...(Is)];
        ((high[Is] = sums_of_bytes{}), ...);
        for (std::size_t t = 0; t < rows.count; t += 4) {
            for (std::size_t i = t; i < t + 4; ++i) {
                prefetch_row(rows, i, first, last);
            }
            const __m512i v[2] = {
                _mm512_maskz_permutexvar_epi8(
                    ~0ULL, by_channel, four_rows(rows.group + t, Codes::offset(c))),
                Chunks == 1 ? _mm512_setzero_si512()
                            : _mm512_maskz_permutexvar_epi8(
                                  ~0ULL,
                                  by_channel,
                                  four_rows(rows.group + t, Codes::offset(c + (Chunks - 1) * 16)))};
            ((add_products_of_bytes(high[Is],
                                    four_weights(weights.high + Is / Chunks * attend_tile + t),
                                    v[Is % Chunks])),
             ...);
            ((add_products_of_bytes(low[Is],
                                    four_weights(weights.low + Is / Chunks * attend_tile + t),
                                    v[Is % Chunks])),
             ...);
        }
        ((low[Is] += high[Is] << 8), ...);
    } else {
        const __m512i lower = _mm512_set1_epi8(0x0F);
        const __m512i upper = _mm512_set1_epi8(static_cast<char>(0xF0));
        ((low[Is] = sums_of_bytes{} - 8 * weights.sum[Is / Chunks]), ...);
        for (std::size_t t = 0; t < rows.count; t += 4) {
            for (std::size_t i = t; i < t + 4; ++i) {
                prefetch_row(rows, i, first, last);
            }
            const __m512i x = _mm512_maskz_permutexvar_epi8(
                ~0ULL, by_channel, four_rows(rows.group + t, Codes::offset(c)));
            const __m512i one[2] = {_mm512_and_si512(x, lower),
                                    _mm512_and_si512(_mm512_maskz_srli_epi16(~0U, x, 4), lower)};
            const __m512i sixteen[2] = {_mm512_and_si512(_mm512_maskz_slli_epi16(~0U, x, 4), upper),
                                        _mm512_and_si512(x, upper)};
            ((add_products_of_bytes(low[Is],
                                    sixteen[Is % Chunks],
                                    four_weights(weights.high + Is / Chunks * attend_tile + t))),
             ...);
            ((add_products_of_bytes(low[Is],
                                    one[Is % Chunks],
                                    four_weights(weights.low + Is / Chunks * attend_tile + t))),
             ...);
        }
    }
    (_mm512_storeu_ps(
         out + Is / Chunks * dim + c + Is % Chunks * 16,
         _mm512_fmadd_ps(whole_floats(low[Is]),
                         _mm512_set1_ps(weights.step[Is / Chunks]),
                         _mm512_loadu_ps(out + Is / Chunks * dim + c + Is % Chunks * 16))),
     ...);
}

template <typename Codes, std::size_t Queries>
KVCRUSH_TARGET_AVX512 inline void integer_accumulate_tile(const tile_rows& rows,
                                                          const float* weights,
                                                          const float* scales,
                                                          std::size_t dim,
                                                          bool prefetch,
                                                          float* out) noexcept {
    integer_weights rounded;
    float largest[Queries];
    float bounds[Queries];
    for (std::size_t q = 0; q < Queries; ++q) {
        largest[q] = largest_magnitude_of_tile(weights + q * attend_tile);
    }
    for (std::size_t c = 0; c < dim; c += 32) {
        if (Codes::has_blocks || c == 0) {
            const float* const of_block = scales + (Codes::has_blocks ? c / 32 * attend_tile : 0);
            const float largest_scale = largest_magnitude_of_tile(of_block);
            for (std::size_t q = 0; q < Queries; ++q) {
                bounds[q] = largest[q] * largest_scale;
            }
            round_weights<Codes>(weights, of_block, bounds, Queries, rounded);
        }
        if (dim - c >= 32) {
            integer_accumulate_block<Codes, 2>(
                rows, rounded, c, dim, prefetch, out, std::make_index_sequence<2 * Queries>());
        } else if constexpr (Codes::bits == 8) {
            integer_accumulate_block<Codes, 1>(
                rows, rounded, c, dim, prefetch, out, std::make_index_sequence<Queries>());
        }
    }
}

/// sums[q * dim + c] += sum over t of weights[q * attend_tile + t] * row t
template <typename Codes>
KVCRUSH_TARGET_AVX512 inline void integer_accumulate(const tile_rows& rows,
                                                     const float* weights,
                                                     std::size_t num_queries,
                                                     std::size_t dim,
                                                     float* sums) noexcept {
    alignas(64) float scales[(Codes::has_blocks ? integer_max_blocks : 1) * attend_tile];
    tile_scales<Codes>(rows, dim, scales);
    for (std::size_t q = 0; q < num_queries; q += 4) {
        const float* const from = weights + q * attend_tile;
        float* const to = sums + q * dim;
        switch (num_queries - q) {
        case 1: integer_accumulate_tile<Codes, 1>(rows, from, scales, dim, q == 0, to); break;
        case 2: integer_accumulate_tile<Codes, 2>(rows, from, scales, dim, q == 0, to); break;
        case 3: integer_accumulate_tile<Codes, 3>(rows, from, scales, dim, q == 0, to); break;
        default: integer_accumulate_tile<Codes, 4>(rows, from, scales, dim, q == 0, to); break;
        }
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
#endif
