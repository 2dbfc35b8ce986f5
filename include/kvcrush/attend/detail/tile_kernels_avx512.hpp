// SPDX-License-Identifier: Apache-2.0
/// @file
/// Products of a tile of rows with queries, and its weighted sum, in fp32 on AVX-512, for any row loader.
///
/// Four rows are read together for four queries: 16 sums over the channels, which are then reduced to one vector of 16
/// logits by transposing them while they are added (15 additions and 17 shuffles, instead of 16 times 4 and 4). The next
/// tile is prefetched row by row while this one is worked on. Error of a logit: at most (dim / 16 + 5) * 2^-24 * sum |q|
/// |k|, of a weighted sum of n rows: n * 2^-24 * sum |w| |v|.
#pragma once

#include <kvcrush/attend/detail/row_loaders_avx512.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/config.hpp>

#include <cstddef>
#include <utility>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Sums of each of 16 vectors, s[4 * query + row], in lane 4 * query + row.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512
add_lanes_avx512(const __m512 (&s)[16]) noexcept {
    // Halves: queries 0 and 2 (1 and 3) share a vector.
    const __m512 h0 = _mm512_add_ps(_mm512_mask_blend_ps(0xFF00, s[0], s[8]),
                                    _mm512_maskz_shuffle_f32x4(0xFFFF, s[0], s[8], 0x4E));
    const __m512 h1 = _mm512_add_ps(_mm512_mask_blend_ps(0xFF00, s[1], s[9]),
                                    _mm512_maskz_shuffle_f32x4(0xFFFF, s[1], s[9], 0x4E));
    const __m512 h2 = _mm512_add_ps(_mm512_mask_blend_ps(0xFF00, s[2], s[10]),
                                    _mm512_maskz_shuffle_f32x4(0xFFFF, s[2], s[10], 0x4E));
    const __m512 h3 = _mm512_add_ps(_mm512_mask_blend_ps(0xFF00, s[3], s[11]),
                                    _mm512_maskz_shuffle_f32x4(0xFFFF, s[3], s[11], 0x4E));
    const __m512 g0 = _mm512_add_ps(_mm512_mask_blend_ps(0xFF00, s[4], s[12]),
                                    _mm512_maskz_shuffle_f32x4(0xFFFF, s[4], s[12], 0x4E));
    const __m512 g1 = _mm512_add_ps(_mm512_mask_blend_ps(0xFF00, s[5], s[13]),
                                    _mm512_maskz_shuffle_f32x4(0xFFFF, s[5], s[13], 0x4E));
    const __m512 g2 = _mm512_add_ps(_mm512_mask_blend_ps(0xFF00, s[6], s[14]),
                                    _mm512_maskz_shuffle_f32x4(0xFFFF, s[6], s[14], 0x4E));
    const __m512 g3 = _mm512_add_ps(_mm512_mask_blend_ps(0xFF00, s[7], s[15]),
                                    _mm512_maskz_shuffle_f32x4(0xFFFF, s[7], s[15], 0x4E));
    // Quarters: one query in each.
    const __m512i swapped =
        _mm512_setr_epi32(4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
    const __m512 q0 = _mm512_add_ps(_mm512_mask_blend_ps(0xF0F0, h0, g0),
                                    _mm512_permutex2var_ps(h0, swapped, g0));
    const __m512 q1 = _mm512_add_ps(_mm512_mask_blend_ps(0xF0F0, h1, g1),
                                    _mm512_permutex2var_ps(h1, swapped, g1));
    const __m512 q2 = _mm512_add_ps(_mm512_mask_blend_ps(0xF0F0, h2, g2),
                                    _mm512_permutex2var_ps(h2, swapped, g2));
    const __m512 q3 = _mm512_add_ps(_mm512_mask_blend_ps(0xF0F0, h3, g3),
                                    _mm512_permutex2var_ps(h3, swapped, g3));
    // Rows within the quarters.
    const __m512 r01 =
        _mm512_add_ps(_mm512_mask_blend_ps(0xCCCC, q0, q1), _mm512_shuffle_ps(q0, q1, 0x4E));
    const __m512 r23 =
        _mm512_add_ps(_mm512_mask_blend_ps(0xCCCC, q2, q3), _mm512_shuffle_ps(q2, q3, 0x4E));
    return _mm512_add_ps(_mm512_shuffle_ps(r01, r23, 0x88), _mm512_shuffle_ps(r01, r23, 0xDD));
}

/// Lanes 4 q ... 4 q + 3 to out + q * attend_tile.
template <std::size_t Queries>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void store_logits_avx512(__m512 logits,
                                                                             float* out) noexcept {
    _mm_storeu_ps(out, _mm512_maskz_extractf32x4_ps(0xF, logits, 0));
    if constexpr (Queries > 1) {
        _mm_storeu_ps(out + attend_tile, _mm512_maskz_extractf32x4_ps(0xF, logits, 1));
    }
    if constexpr (Queries > 2) {
        _mm_storeu_ps(out + 2 * attend_tile, _mm512_maskz_extractf32x4_ps(0xF, logits, 2));
    }
    if constexpr (Queries > 3) {
        _mm_storeu_ps(out + 3 * attend_tile, _mm512_maskz_extractf32x4_ps(0xF, logits, 3));
    }
}

/// Asks for bytes [first, last) of row t of the tile that comes next. Into L2: L1 waits for fewer lines at a time, and
/// with them the whole is half as fast (Zen 4).
[[gnu::always_inline]] inline void
prefetch_row(const tile_rows& rows, std::size_t t, std::size_t first, std::size_t last) noexcept {
    if (rows.next != nullptr && t < rows.next->count) {
        for (std::size_t i = first; i < last; i += 64) {
            __builtin_prefetch(rows.next->group[t] + i, 0, 2);
        }
    }
}

/// Rows t ... t + 3 with sizeof...(Is) / 4 queries.
template <typename Loader, std::size_t... Is>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
dots_block_avx512(const std::byte* const* rows,
                  const float* queries,
                  std::size_t dim,
                  const float* gains,
                  float* out,
                  std::index_sequence<Is...>) noexcept {
    const __m512 zero = _mm512_setzero_ps();
    __m512 sums[16] = {zero,
                       zero,
                       zero,
                       zero,
                       zero,
                       zero,
                       zero,
                       zero,
                       zero,
                       zero,
                       zero,
                       zero,
                       zero,
                       zero,
                       zero,
                       zero};
    const std::byte* const r0 = rows[0];
    const std::byte* const r1 = rows[1];
    const std::byte* const r2 = rows[2];
    const std::byte* const r3 = rows[3];
    std::size_t c = 0;
    for (; c + 32 <= dim; c += 32) {
        const channels_avx512 k[4] = {
            Loader::load(r0, c), Loader::load(r1, c), Loader::load(r2, c), Loader::load(r3, c)};
        ((sums[Is] = _mm512_fmadd_ps(
              k[Is % 4].low, _mm512_loadu_ps(queries + Is / 4 * dim + c), sums[Is])),
         ...);
        ((sums[Is] = _mm512_fmadd_ps(
              k[Is % 4].high, _mm512_loadu_ps(queries + Is / 4 * dim + c + 16), sums[Is])),
         ...);
    }
    if (c < dim) {
        const std::size_t rest = dim - c;
        const __mmask16 low = rest_lanes_avx512(rest, 0);
        const __mmask16 high = rest_lanes_avx512(rest, 16);
        const channels_avx512 k[4] = {Loader::load_first(r0, c, rest),
                                      Loader::load_first(r1, c, rest),
                                      Loader::load_first(r2, c, rest),
                                      Loader::load_first(r3, c, rest)};
        ((sums[Is] = _mm512_fmadd_ps(
              k[Is % 4].low, _mm512_maskz_loadu_ps(low, queries + Is / 4 * dim + c), sums[Is])),
         ...);
        ((sums[Is] = _mm512_fmadd_ps(k[Is % 4].high,
                                     _mm512_maskz_loadu_ps(high, queries + Is / 4 * dim + c + 16),
                                     sums[Is])),
         ...);
    }
    __m512 logits = add_lanes_avx512(sums);
    if constexpr (Loader::has_gain) {
        logits = _mm512_mul_ps(logits, _mm512_maskz_broadcast_f32x4(0xFFFF, _mm_loadu_ps(gains)));
    }
    store_logits_avx512<sizeof...(Is) / 4>(logits, out);
}

template <typename Loader, std::size_t Queries>
KVCRUSH_TARGET_AVX512 inline void dots_tile_avx512(const tile_rows& rows,
                                                   const float* queries,
                                                   std::size_t dim,
                                                   const float* gains,
                                                   bool prefetch,
                                                   float* out) noexcept {
    const std::size_t bytes = prefetch ? Loader::offset(dim) : 0;
    for (std::size_t t = 0; t < rows.count; t += 4) {
        for (std::size_t i = t; i < t + 4; ++i) {
            prefetch_row(rows, i, 0, bytes);
        }
        dots_block_avx512<Loader>(rows.group + t,
                                  queries,
                                  dim,
                                  Loader::has_gain ? gains + t : nullptr,
                                  out + t,
                                  std::make_index_sequence<4 * Queries>());
    }
}

/// out[q * attend_tile + t] = query q . row t
template <typename Loader>
KVCRUSH_TARGET_AVX512 void dots_avx512(const tile_rows& rows,
                                       const float* queries,
                                       std::size_t num_queries,
                                       std::size_t dim,
                                       float* out) noexcept {
    float row_gains[attend_tile];
    const float* gains = nullptr;
    if constexpr (Loader::has_gain) {
        Loader::gains(rows, dim, row_gains);
        gains = row_gains;
    }
    for (std::size_t q = 0; q < num_queries; q += 4) {
        const float* const from = queries + q * dim;
        float* const to = out + q * attend_tile;
        switch (num_queries - q) {
        case 1: dots_tile_avx512<Loader, 1>(rows, from, dim, gains, q == 0, to); break;
        case 2: dots_tile_avx512<Loader, 2>(rows, from, dim, gains, q == 0, to); break;
        case 3: dots_tile_avx512<Loader, 3>(rows, from, dim, gains, q == 0, to); break;
        default: dots_tile_avx512<Loader, 4>(rows, from, dim, gains, q == 0, to); break;
        }
    }
}

/// Channels c ... c + 63, sizeof...(Is) / 4 queries.
template <typename Loader, std::size_t... Is>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
accumulate_block_avx512(const tile_rows& rows,
                        const float* weights,
                        std::size_t c,
                        std::size_t dim,
                        bool prefetch,
                        float* out,
                        std::index_sequence<Is...>) noexcept {
    __m512 sums[sizeof...(Is)];
    ((sums[Is] = _mm512_loadu_ps(out + Is / 4 * dim + c + Is % 4 * 16)), ...);
    const std::size_t first = prefetch ? Loader::offset(c) : 0;
    const std::size_t last = prefetch ? Loader::offset(c + 64) : 0;
    for (std::size_t t = 0; t < rows.count; ++t) {
        prefetch_row(rows, t, first, last);
        const channels_avx512 a = Loader::load(rows.group[t], c);
        const channels_avx512 b = Loader::load(rows.group[t], c + 32);
        const __m512 v[4] = {a.low, a.high, b.low, b.high};
        ((sums[Is] = _mm512_fmadd_ps(
              v[Is % 4], _mm512_set1_ps(weights[Is / 4 * attend_tile + t]), sums[Is])),
         ...);
    }
    (_mm512_storeu_ps(out + Is / 4 * dim + c + Is % 4 * 16, sums[Is]), ...);
}

/// At most 32 channels, those from c on, sizeof...(Is) / 2 queries.
template <typename Loader, std::size_t... Is>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
accumulate_rest_avx512(const tile_rows& rows,
                       const float* weights,
                       std::size_t c,
                       std::size_t dim,
                       bool prefetch,
                       float* out,
                       std::index_sequence<Is...>) noexcept {
    const std::size_t rest = dim - c < 32 ? dim - c : 32;
    const __mmask16 lanes[2] = {rest_lanes_avx512(rest, 0), rest_lanes_avx512(rest, 16)};
    __m512 sums[sizeof...(Is)];
    ((sums[Is] = _mm512_maskz_loadu_ps(lanes[Is % 2], out + Is / 2 * dim + c + Is % 2 * 16)), ...);
    const std::size_t first = prefetch ? Loader::offset(c) : 0;
    const std::size_t last = prefetch ? Loader::offset(c + rest) : 0;
    for (std::size_t t = 0; t < rows.count; ++t) {
        prefetch_row(rows, t, first, last);
        const channels_avx512 a = rest == 32 ? Loader::load(rows.group[t], c)
                                             : Loader::load_first(rows.group[t], c, rest);
        const __m512 v[2] = {a.low, a.high};
        ((sums[Is] = _mm512_fmadd_ps(
              v[Is % 2], _mm512_set1_ps(weights[Is / 2 * attend_tile + t]), sums[Is])),
         ...);
    }
    (_mm512_mask_storeu_ps(out + Is / 2 * dim + c + Is % 2 * 16, lanes[Is % 2], sums[Is]), ...);
}

template <typename Loader, std::size_t Queries>
KVCRUSH_TARGET_AVX512 inline void accumulate_tile_avx512(const tile_rows& rows,
                                                         const float* weights,
                                                         const float* gains,
                                                         std::size_t dim,
                                                         bool prefetch,
                                                         float* out) noexcept {
    float scaled[4 * attend_tile];
    if constexpr (Loader::has_gain) {
        for (std::size_t t = 0; t < attend_tile; t += 16) {
            const __m512 gain = _mm512_loadu_ps(gains + t);
            for (std::size_t q = 0; q < Queries; ++q) {
                const std::size_t at = q * attend_tile + t;
                _mm512_storeu_ps(scaled + at, _mm512_mul_ps(gain, _mm512_loadu_ps(weights + at)));
            }
        }
        weights = scaled;
    }
    std::size_t c = 0;
    for (; c + 64 <= dim; c += 64) {
        accumulate_block_avx512<Loader>(
            rows, weights, c, dim, prefetch, out, std::make_index_sequence<4 * Queries>());
    }
    for (; c < dim; c += 32) {
        accumulate_rest_avx512<Loader>(
            rows, weights, c, dim, prefetch, out, std::make_index_sequence<2 * Queries>());
    }
}

/// sums[q * dim + c] += sum over t of weights[q * attend_tile + t] * row t
template <typename Loader>
KVCRUSH_TARGET_AVX512 void accumulate_avx512(const tile_rows& rows,
                                             const float* weights,
                                             std::size_t num_queries,
                                             std::size_t dim,
                                             float* sums) noexcept {
    float row_gains[attend_tile];
    const float* gains = nullptr;
    if constexpr (Loader::has_gain) {
        Loader::gains(rows, dim, row_gains);
        gains = row_gains;
    }
    for (std::size_t q = 0; q < num_queries; q += 4) {
        const float* const from = weights + q * attend_tile;
        float* const to = sums + q * dim;
        switch (num_queries - q) {
        case 1: accumulate_tile_avx512<Loader, 1>(rows, from, gains, dim, q == 0, to); break;
        case 2: accumulate_tile_avx512<Loader, 2>(rows, from, gains, dim, q == 0, to); break;
        case 3: accumulate_tile_avx512<Loader, 3>(rows, from, gains, dim, q == 0, to); break;
        default: accumulate_tile_avx512<Loader, 4>(rows, from, gains, dim, q == 0, to); break;
        }
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
#endif
