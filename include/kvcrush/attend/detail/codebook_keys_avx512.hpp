// SPDX-License-Identifier: Apache-2.0
/// @file
/// Products of queries with keys of a codebook in integer arithmetic, on AVX-512 with VNNI and VBMI: centroids and
/// queries are rounded to 8 bits, 127 for the largest centroid and for the largest channel of each query. With c and q
/// those, the error of a logit is at most q c / 127 times the norm of the key times sqrt(dim).
///
/// Sixteen rows are taken together, a word of 64 bits of each of eight in a register. vpmultishiftqb brings eight codes
/// into a byte each, so that dpbusd adds up four channels of a row, and two lanes are left to add.
#pragma once

#include <kvcrush/attend/detail/codebook_tables_avx512.hpp>
#include <kvcrush/attend/detail/integer_kernels_avx512.hpp>
#include <kvcrush/attend/detail/row_loaders_avx512.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/config.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// How the codes of 64 channels become eight vectors, of eight channels each.
template <std::size_t Bits>
struct codebook_key_layout {
    /// Words that the codes of a row are read in.
    static constexpr std::size_t num_words = Bits == 2 ? 2 : 4;
    static constexpr std::size_t vectors_per_word = 8 / num_words;

    /// Which channel of the 64 stands in byte i of vector v.
    static constexpr std::size_t channel(std::size_t v, std::size_t i) noexcept {
        return Bits == 3 ? 8 * v + i
                         : v / vectors_per_word * (64 / num_words) + vectors_per_word * i +
                               v % vectors_per_word;
    }

    /// The first bit of each of those codes in their word.
    static constexpr sixty_four_bytes shifts_of(std::size_t v) noexcept {
        sixty_four_bytes all{};
        for (std::size_t i = 0; i < 64; ++i) {
            const std::size_t first = Bits != 3 ? 0 : v < 2 || v >= 6 ? 16 : 0;
            const std::size_t code = channel(v, i % 8) % (64 / num_words);
            all[i] = static_cast<std::uint8_t>(first + Bits * code);
        }
        return all;
    }
    alignas(64) static constexpr std::array<sixty_four_bytes, 8> shifts = {shifts_of(0),
                                                                           shifts_of(1),
                                                                           shifts_of(2),
                                                                           shifts_of(3),
                                                                           shifts_of(4),
                                                                           shifts_of(5),
                                                                           shifts_of(6),
                                                                           shifts_of(7)};
    /// Codes that begin with their byte stay where they are.
    static constexpr bool stays(std::size_t v) noexcept {
        return Bits != 3 && v % vectors_per_word == 0;
    }
};

/// 16 bytes of rows 0, 4, 8 and 12.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512_VNNI inline __m512i
every_fourth_row(const std::byte* const* rows, std::ptrdiff_t offset) noexcept {
    const std::byte* const four[4] = {rows[0], rows[4], rows[8], rows[12]};
    return four_rows(four, static_cast<std::size_t>(offset));
}

/// A register for each word: rows 0, 1, 4, 5, 8, 9, 12 and 13 of `rows`.
/// @param offset  of the codes of 64 channels in each row
template <std::size_t Bits>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512_VNNI inline void
codebook_words(const std::byte* const* rows, std::ptrdiff_t offset, __m512i* out) noexcept {
    // 24 bytes of 3-bit codes: one load begins in front of them and one ends with them, because there may be nothing behind.
    const __m512i a = every_fourth_row(rows, offset - (Bits == 3 ? 2 : 0));
    const __m512i b = every_fourth_row(rows + 1, offset - (Bits == 3 ? 2 : 0));
    out[0] = _mm512_maskz_unpacklo_epi64(0xFF, a, b);
    out[1] = _mm512_maskz_unpackhi_epi64(0xFF, a, b);
    if constexpr (Bits > 2) {
        const std::ptrdiff_t second = offset + (Bits == 3 ? 8 : 16);
        const __m512i c = every_fourth_row(rows, second);
        const __m512i d = every_fourth_row(rows + 1, second);
        out[3] = _mm512_maskz_unpackhi_epi64(0xFF, c, d);
        if constexpr (Bits == 3) { // four bytes later, so that it begins with a code
            out[2] = _mm512_maskz_unpacklo_epi64(
                0xFF, _mm512_bsrli_epi128(c, 4), _mm512_bsrli_epi128(d, 4));
        } else {
            out[2] = _mm512_maskz_unpacklo_epi64(0xFF, c, d);
        }
    }
}

/// Centroids plus 128 of the channels of vector V, a row in each 64 bits.
template <std::size_t Bits, std::size_t V>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512_VNNI inline __m512i
codebook_keys(const __m512i* words, __m512i table) noexcept {
    using layout = codebook_key_layout<Bits>;
    const __m512i word = words[V / layout::vectors_per_word];
    if constexpr (layout::stays(V)) {
        return look_up_bytes(table, word);
    } else {
        return look_up_bytes(
            table, _mm512_maskz_multishift_epi64_epi8(~0ULL, sixty_four(layout::shifts[V]), word));
    }
}

/// Queries as signed bytes, one after the other:
///     float step; 4 bytes unused; int32 that corrects for codes being unsigned; int32 0; per 64 channels eight times 8
template <std::size_t Bits>
struct codebook_queries {
    static constexpr std::size_t head = 16;
    static constexpr std::size_t query_bytes(std::size_t dim) noexcept { return head + dim; }

    KVCRUSH_TARGET_AVX512_VNNI static void prepare(const float* queries,
                                                   std::size_t num_queries,
                                                   std::size_t dim,
                                                   std::byte* out) noexcept {
        for (std::size_t q = 0; q < num_queries; ++q, queries += dim, out += query_bytes(dim)) {
            __m512 high = _mm512_setzero_ps();
            for (std::size_t c = 0; c < dim; c += 16) {
                high =
                    _mm512_maskz_max_ps(0xFFFF, high, _mm512_abs_ps(_mm512_loadu_ps(queries + c)));
            }
            const float step = simd::detail::largest_lane_avx512(high) / 127.0F;
            // A step that is subnormal has no finite inverse.
            const __m512 per_step = _mm512_set1_ps(step >= 0x1p-126F ? 1.0F / step : 0.0F);
            alignas(64) std::int8_t whole[integer_max_dim];
            for (std::size_t c = 0; c < dim; c += 16) {
                __m512i some = _mm512_maskz_cvtps_epi32(
                    0xFFFF, _mm512_mul_ps(_mm512_loadu_ps(queries + c), per_step));
                some = _mm512_maskz_min_epi32(0xFFFF, some, _mm512_set1_epi32(127));
                some = _mm512_maskz_max_epi32(0xFFFF, some, _mm512_set1_epi32(-127));
                _mm_store_si128(reinterpret_cast<__m128i*>(whole + c),
                                _mm512_maskz_cvtepi32_epi8(0xFFFF, some));
            }
            std::int32_t sum = 0;
            for (std::size_t c = 0; c < dim; ++c) {
                const std::size_t channel = codebook_key_layout<Bits>::channel(c % 64 / 8, c % 8);
                const std::int8_t one = whole[c / 64 * 64 + channel];
                std::memcpy(out + head + c, &one, 1);
                sum += one;
            }
            const std::int32_t correction[2] = {-128 * sum, 0};
            std::memcpy(out, &step, sizeof step);
            std::memcpy(out + 8, correction, sizeof correction);
        }
    }
};

/// 8 bytes, eight times.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512_VNNI inline __m512i
eight_times(const std::byte* from) noexcept {
    long long bytes = 0;
    std::memcpy(&bytes, from, sizeof bytes);
    return _mm512_set1_epi64(bytes);
}

/// Vector V of 64 channels. I is 2 * query + half of the rows.
template <std::size_t Bits, std::size_t V, std::size_t... I>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512_VNNI inline void
add_codebook_products(sums_of_bytes* sums,
                      const __m512i (&words)[2][codebook_key_layout<Bits>::num_words],
                      const std::byte* const* queries,
                      std::size_t at,
                      __m512i table,
                      std::index_sequence<I...>) noexcept {
    const __m512i k[2] = {codebook_keys<Bits, V>(words[0], table),
                          codebook_keys<Bits, V>(words[1], table)};
    ((add_products_of_bytes(sums[I], k[I % 2], eight_times(queries[I / 2] + at + 8 * V))), ...);
}

/// Sums of the two lanes of each row, rows in order.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512_VNNI inline __m512
add_lane_pairs(sums_of_bytes first, sums_of_bytes second) noexcept {
    const __m512 a = reinterpret_cast<__m512>(first);
    const __m512 b = reinterpret_cast<__m512>(second);
    const __m512i even = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88));
    const __m512i odd = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xDD));
    return _mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_add_epi32(even, odd));
}

/// Sixteen rows with sizeof...(I) / 2 queries.
template <std::size_t Bits, std::size_t... V, std::size_t... I>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512_VNNI inline void
codebook_dots_block(const std::byte* const* rows,
                    const std::byte* const* queries,
                    const float* steps,
                    std::size_t dim,
                    __m512 scales,
                    float* out,
                    std::index_sequence<V...>,
                    std::index_sequence<I...> indices) noexcept {
    constexpr std::size_t head = codebook_queries<Bits>::head;
    const __m512i table = sixty_four(codebook_table<Bits>::without_sign);
    sums_of_bytes sums[sizeof...(I)];
    ((sums[I] = reinterpret_cast<sums_of_bytes>(eight_times(queries[I / 2] + 8))), ...);
    std::ptrdiff_t offset = 2;
    for (std::size_t at = head; at < head + dim; at += 64, offset += 8 * std::ptrdiff_t{Bits}) {
        __m512i words[2][codebook_key_layout<Bits>::num_words];
        codebook_words<Bits>(rows, offset, words[0]);
        codebook_words<Bits>(rows + 2, offset, words[1]);
        (add_codebook_products<Bits, V>(sums, words, queries, at, table, indices), ...);
    }
    ((I % 2 == 0
          ? _mm512_storeu_ps(out + I / 2 * attend_tile,
                             _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(steps[I / 2]),
                                                         add_lane_pairs(sums[I], sums[I | 1])),
                                           scales))
          : void()),
     ...);
}

template <std::size_t Bits, std::size_t Queries>
KVCRUSH_TARGET_AVX512_VNNI inline void codebook_dots_tile(const tile_rows& rows,
                                                          const std::byte* queries,
                                                          std::size_t dim,
                                                          const float* scales,
                                                          bool prefetch,
                                                          float* out) noexcept {
    const std::size_t stride = codebook_queries<Bits>::query_bytes(dim);
    const std::byte* each[Queries] = {};
    float steps[Queries] = {};
    for (std::size_t q = 0; q < Queries; ++q) {
        each[q] = queries + q * stride;
        std::memcpy(&steps[q], each[q], sizeof steps[q]);
    }
    const std::size_t row_bytes = prefetch ? codebook_rows_avx512<Bits>::offset(dim) : 0;
    for (std::size_t t = 0; t < rows.count; t += 16) {
        for (std::size_t i = t; i < t + 16; ++i) {
            prefetch_row(rows, i, 0, row_bytes);
        }
        codebook_dots_block<Bits>(rows.group + t,
                                  each,
                                  steps,
                                  dim,
                                  _mm512_load_ps(scales + t),
                                  out + t,
                                  std::make_index_sequence<8>(),
                                  std::make_index_sequence<2 * Queries>());
    }
}

/// out[q * attend_tile + t] = query q . row t
/// @param queries  as codebook_queries<Bits> prepared them
template <std::size_t Bits>
KVCRUSH_TARGET_AVX512_VNNI inline void codebook_dots(const tile_rows& rows,
                                                     const std::byte* queries,
                                                     std::size_t num_queries,
                                                     std::size_t dim,
                                                     float* out) noexcept {
    alignas(64) float scales[attend_tile];
    codebook_scales<Bits>(rows, dim, scales);
    const std::size_t stride = codebook_queries<Bits>::query_bytes(dim);
    for (std::size_t q = 0; q < num_queries; q += 4) {
        const std::byte* const from = queries + q * stride;
        float* const to = out + q * attend_tile;
        switch (num_queries - q) {
        case 1: codebook_dots_tile<Bits, 1>(rows, from, dim, scales, q == 0, to); break;
        case 2: codebook_dots_tile<Bits, 2>(rows, from, dim, scales, q == 0, to); break;
        case 3: codebook_dots_tile<Bits, 3>(rows, from, dim, scales, q == 0, to); break;
        default: codebook_dots_tile<Bits, 4>(rows, from, dim, scales, q == 0, to); break;
        }
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
#endif
