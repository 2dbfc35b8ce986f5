// SPDX-License-Identifier: Apache-2.0
/// @file
/// Products of queries with keys of a codebook in integer arithmetic, on AVX-512: centroids and
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

/// How the codes of 64 channels become eight vectors, of eight channels each. They are read in parts of two words a row.
template <std::size_t Bits>
struct codebook_key_layout {
    static constexpr std::size_t num_parts = Bits == 2 ? 1 : Bits == 5 ? 4 : 2;
    static constexpr std::size_t vectors_per_word = 4 / num_parts;
    /// Codes of 3 and 5 bits cross bytes: eight channels lie together as they are. Others are taken from whole words.
    static constexpr bool crosses_bytes = Bits % 2 != 0;

    /// Which channel of the 64 stands in byte i of vector v.
    static constexpr std::size_t channel(std::size_t v, std::size_t i) noexcept {
        constexpr std::size_t per_word = 64 / Bits;
        return crosses_bytes
                   ? 8 * v + i
                   : v / vectors_per_word * per_word + vectors_per_word * i + v % vectors_per_word;
    }
    /// The first bit of channel 0 of vector v in its word, or of the first vector of the word.
    static constexpr std::size_t first_bit(std::size_t v) noexcept {
        return Bits == 3 ? (v < 2 || v >= 6 ? 16 : 0) : Bits == 5 ? (v % 2 == 0 ? 24 : 0) : 0;
    }

    static constexpr sixty_four_bytes shifts_of(std::size_t v) noexcept {
        constexpr std::size_t per_word = 8 * vectors_per_word;
        sixty_four_bytes all{};
        for (std::size_t i = 0; i < 64; ++i) {
            const std::size_t code = channel(v, i % 8) % per_word;
            all[i] = static_cast<std::uint8_t>(first_bit(v) + Bits * code);
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
        return !crosses_bytes && v % vectors_per_word == 0;
    }
};

/// 16 bytes of rows 0, 4, 8 and 12.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
every_fourth_row(const std::byte* const* rows, std::ptrdiff_t offset) noexcept {
    const std::byte* const four[4] = {rows[0], rows[4], rows[8], rows[12]};
    return four_rows(four, static_cast<std::size_t>(offset));
}

/// The 16 bytes with the two words of a part, of the rows of every_fourth_row.
/// @param offset  of the codes of 64 channels in each row
template <std::size_t Bits, std::size_t Part>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
codebook_part(const std::byte* const* rows, std::ptrdiff_t offset) noexcept {
    // Nothing in front of a row may be read, and nothing behind it. 24 bytes of 3 bits are read from their norm on and up
    // to their end. 40 bytes of 5 bits are read from three bytes in front of every ten; those at both ends are moved.
    if constexpr (Bits == 3) {
        return every_fourth_row(rows, offset + (Part == 0 ? -2 : 8));
    } else if constexpr (Bits != 5) {
        return every_fourth_row(rows, offset + 16 * std::ptrdiff_t{Part});
    } else if constexpr (Part == 0) {
        return _mm512_bslli_epi128(every_fourth_row(rows, offset), 3);
    } else if constexpr (Part == 3) {
        return _mm512_bsrli_epi128(every_fourth_row(rows, offset + 24), 3);
    } else {
        return every_fourth_row(rows, offset + 10 * std::ptrdiff_t{Part} - 3);
    }
}

/// A register for each of two words: rows 0, 1, 4, 5, 8, 9, 12 and 13 of `rows`.
template <std::size_t Bits, std::size_t Part>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
codebook_words(const std::byte* const* rows, std::ptrdiff_t offset, __m512i (&out)[2]) noexcept {
    const __m512i a = codebook_part<Bits, Part>(rows, offset);
    const __m512i b = codebook_part<Bits, Part>(rows + 1, offset);
    out[1] = _mm512_maskz_unpackhi_epi64(0xFF, a, b);
    if constexpr (Bits == 3 && Part == 1) { // four bytes later, so that it begins with a code
        out[0] =
            _mm512_maskz_unpacklo_epi64(0xFF, _mm512_bsrli_epi128(a, 4), _mm512_bsrli_epi128(b, 4));
    } else {
        out[0] = _mm512_maskz_unpacklo_epi64(0xFF, a, b);
    }
}

/// Centroids plus 128 of the channels of vector V, a row in each 64 bits of the word that holds it.
template <std::size_t Bits, std::size_t V>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i codebook_keys(__m512i word,
                                                                          __m512i table) noexcept {
    using layout = codebook_key_layout<Bits>;
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

    KVCRUSH_TARGET_AVX512 static void prepare(const float* queries,
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
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
eight_times(const std::byte* from) noexcept {
    long long bytes = 0;
    std::memcpy(&bytes, from, sizeof bytes);
    return _mm512_set1_epi64(bytes);
}

/// Vector V of 64 channels. Is is 2 * query + half of the rows.
template <std::size_t Bits, std::size_t V, std::size_t... Is>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
add_codebook_products(sums_of_bytes* sums,
                      __m512i first_half,
                      __m512i second_half,
                      const std::byte* const* queries,
                      std::size_t at,
                      __m512i table,
                      std::index_sequence<Is...>) noexcept {
    const __m512i k[2] = {codebook_keys<Bits, V>(first_half, table),
                          codebook_keys<Bits, V>(second_half, table)};
    ((add_products_of_bytes(sums[Is], k[Is % 2], eight_times(queries[Is / 2] + at + 8 * V))), ...);
}

/// The vectors V of the two words of a part, counted from its first one.
template <std::size_t Bits, std::size_t Part, std::size_t... V, typename Indices>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
add_codebook_part(sums_of_bytes* sums,
                  const std::byte* const* rows,
                  std::ptrdiff_t offset,
                  const std::byte* const* queries,
                  std::size_t at,
                  __m512i table,
                  std::index_sequence<V...>,
                  Indices indices) noexcept {
    constexpr std::size_t per_word = codebook_key_layout<Bits>::vectors_per_word;
    __m512i first[2];
    __m512i second[2];
    codebook_words<Bits, Part>(rows, offset, first);
    codebook_words<Bits, Part>(rows + 2, offset, second);
    (add_codebook_products<Bits, 2 * per_word * Part + V>(
         sums, first[V / per_word], second[V / per_word], queries, at, table, indices),
     ...);
}

/// Sums of the two lanes of each row, rows in order.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512
add_lane_pairs(sums_of_bytes first, sums_of_bytes second) noexcept {
    const __m512 a = reinterpret_cast<__m512>(first);
    const __m512 b = reinterpret_cast<__m512>(second);
    const __m512i even = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0x88));
    const __m512i odd = _mm512_castps_si512(_mm512_shuffle_ps(a, b, 0xDD));
    return _mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_add_epi32(even, odd));
}

/// Sixteen rows with sizeof...(Is) / 2 queries.
template <std::size_t Bits, std::size_t... Part, std::size_t... Is>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
codebook_dots_block(const std::byte* const* rows,
                    const std::byte* const* queries,
                    const float* steps,
                    std::size_t dim,
                    __m512 scales,
                    float* out,
                    std::index_sequence<Part...>,
                    std::index_sequence<Is...> indices) noexcept {
    constexpr std::size_t head = codebook_queries<Bits>::head;
    constexpr auto in_part = std::make_index_sequence<8 / sizeof...(Part)>();
    const __m512i table = sixty_four(codebook_table<Bits>::without_sign);
    sums_of_bytes sums[sizeof...(Is)];
    ((sums[Is] = reinterpret_cast<sums_of_bytes>(eight_times(queries[Is / 2] + 8))), ...);
    std::ptrdiff_t offset = 2;
    for (std::size_t at = head; at < head + dim; at += 64, offset += 8 * std::ptrdiff_t{Bits}) {
        (add_codebook_part<Bits, Part>(sums, rows, offset, queries, at, table, in_part, indices),
         ...);
    }
    ((Is % 2 == 0
          ? _mm512_storeu_ps(out + Is / 2 * attend_tile,
                             _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(steps[Is / 2]),
                                                         add_lane_pairs(sums[Is], sums[Is | 1])),
                                           scales))
          : void()),
     ...);
}

template <std::size_t Bits, std::size_t Queries>
KVCRUSH_TARGET_AVX512 inline void codebook_dots_tile(const tile_rows& rows,
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
                                  std::make_index_sequence<codebook_key_layout<Bits>::num_parts>(),
                                  std::make_index_sequence<2 * Queries>());
    }
}

/// out[q * attend_tile + t] = query q . row t
/// @param queries  as codebook_queries<Bits> prepared them
template <std::size_t Bits>
KVCRUSH_TARGET_AVX512 inline void codebook_dots(const tile_rows& rows,
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
