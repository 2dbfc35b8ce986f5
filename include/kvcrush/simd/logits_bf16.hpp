// SPDX-License-Identifier: Apache-2.0
/// @file
/// Dot products of many bf16 queries with tiles of bf16 keys, as f32: twice the speed of simd/logits.hpp where the CPU
/// multiplies pairs of bf16 (vdpbf16ps, AVX512_BF16).
///
/// Keys are packed once per tile, pair of channels by pair of channels, so that one vector load brings one pair of 16 (8)
/// tokens and no sum ever runs across lanes. Products of bf16 are exact in f32; what rounds are the sums. Without
/// AVX512_BF16 keys and queries are widened to f32 in registers, and one multiply-add per channel follows, in ascending
/// order: those AVX2 and AVX-512 rungs agree bit for bit, the others add in an order of their own.
///
/// Error of a logit before scaling, on every rung: at most
///
///     (head_dim + 1) * 2^-23 * sum |q| |k|  +  2^-126 * sum (|q| + |k| + 2)
///
/// The second term is there because vdpbf16ps takes subnormal numbers for zero, whatever MXCSR says, and returns none.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/logits.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// Elements of a packed tile of bf16 keys: an odd channel at the end is paired with zeros.
[[nodiscard]] constexpr std::size_t bf16_tile_size(std::size_t head_dim) noexcept {
    return (head_dim + head_dim % 2) * key_tile;
}

namespace detail {

struct pack_bf16_tile_args {
    const bf16* const* rows;
    std::size_t count;
    std::size_t head_dim;
    bf16* tile;
};

struct bf16_logits_args {
    const bf16* queries;
    std::size_t query_stride;
    std::size_t num_queries;
    const bf16* tile;
    std::size_t head_dim;
    float scale;
    float* out;
    std::size_t out_stride;
    std::size_t count;
};

/// Tokens [first, last) and channels [channel, head_dim) one by one, `channel` being even; tokens behind count become zero.
inline void pack_bf16_rest(const pack_bf16_tile_args& args,
                           std::size_t first,
                           std::size_t last,
                           std::size_t channel) noexcept {
    for (std::size_t k = channel; k < args.head_dim; k += 2) {
        bf16* const out = args.tile + k * key_tile;
        for (std::size_t t = first; t < last; ++t) {
            const bool present = t < args.count;
            out[2 * t] = present ? args.rows[t][k] : bf16{};
            out[2 * t + 1] = present && k + 1 < args.head_dim ? args.rows[t][k + 1] : bf16{};
        }
    }
}

inline void pack_bf16_tile_scalar(const pack_bf16_tile_args& args) noexcept {
    pack_bf16_rest(args, 0, key_tile, 0);
}

inline void bf16_logits_scalar(const bf16_logits_args& args) noexcept {
    constexpr std::size_t width = 16; // sums of one step stay in registers
    for (std::size_t q = 0; q < args.num_queries; ++q) {
        const bf16* const query = args.queries + q * args.query_stride;
        float* const out = args.out + q * args.out_stride;
        for (std::size_t t = 0; t < args.count; t += width) {
            float sum[width] = {};
            for (std::size_t k = 0; k < args.head_dim; ++k) {
                const float factor = kvcrush::to_float(query[k]);
                const bf16* const keys = args.tile + (k / 2 * key_tile + t) * 2 + k % 2;
                for (std::size_t i = 0; i < width; ++i) {
                    sum[i] += factor * kvcrush::to_float(keys[2 * i]);
                }
            }
            const std::size_t last = (std::min)(width, args.count - t);
            for (std::size_t i = 0; i < last; ++i) {
                out[t + i] = args.scale * sum[i];
            }
        }
    }
}

#if KVCRUSH_X86_DISPATCH

/// Four pairs of two keys.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i load_pairs(const bf16* low,
                                                                     const bf16* high) noexcept {
    return _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(high),
                               reinterpret_cast<const __m128i*>(low));
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void store_pairs(bf16* out,
                                                                   __m256i pairs) noexcept {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), pairs);
}

/// Blocks of 8 tokens x 4 pairs, as pack_key_tile_avx2 with a pair in the place of a float.
KVCRUSH_TARGET_AVX2 inline void pack_bf16_tile_avx2(const pack_bf16_tile_args& args) noexcept {
    constexpr std::size_t row = 2 * key_tile;
    const std::size_t whole = args.head_dim / 8 * 8;
    const std::size_t tokens = args.count / 8 * 8;
    for (std::size_t t = 0; t < tokens; t += 8) {
        // Copies: for all the compiler knows, the stores change args and its rows.
        bf16* const tile = args.tile + 2 * t;
        const bf16* const row0 = args.rows[t];
        const bf16* const row1 = args.rows[t + 1];
        const bf16* const row2 = args.rows[t + 2];
        const bf16* const row3 = args.rows[t + 3];
        const bf16* const row4 = args.rows[t + 4];
        const bf16* const row5 = args.rows[t + 5];
        const bf16* const row6 = args.rows[t + 6];
        const bf16* const row7 = args.rows[t + 7];
        for (std::size_t k = 0; k < whole; k += 8) {
            const __m256i a = load_pairs(row0 + k, row4 + k);
            const __m256i b = load_pairs(row1 + k, row5 + k);
            const __m256i c = load_pairs(row2 + k, row6 + k);
            const __m256i d = load_pairs(row3 + k, row7 + k);
            const __m256i ab_low = _mm256_unpacklo_epi32(a, b);
            const __m256i ab_high = _mm256_unpackhi_epi32(a, b);
            const __m256i cd_low = _mm256_unpacklo_epi32(c, d);
            const __m256i cd_high = _mm256_unpackhi_epi32(c, d);
            bf16* const out = tile + k * key_tile;
            store_pairs(out, _mm256_unpacklo_epi64(ab_low, cd_low));
            store_pairs(out + row, _mm256_unpackhi_epi64(ab_low, cd_low));
            store_pairs(out + 2 * row, _mm256_unpacklo_epi64(ab_high, cd_high));
            store_pairs(out + 3 * row, _mm256_unpackhi_epi64(ab_high, cd_high));
        }
    }
    pack_bf16_rest(args, 0, tokens, whole);
    if (tokens < key_tile) {
        pack_bf16_rest(args, tokens, key_tile, 0);
    }
}

/// Two channels of a query as they lie in memory.
[[nodiscard]] inline int channel_pair(const bf16* channels) noexcept {
    int pair;
    std::memcpy(&pair, channels, sizeof pair);
    return pair;
}

/// Runs Block on as many queries at a time as it has registers for. A call per block costs nothing beside its products, and
/// spares a copy of this for each rung.
template <typename Block>
void bf16_logits_by_blocks(const bf16_logits_args& args) noexcept {
    for (std::size_t q = 0; q < args.num_queries;) {
        const std::size_t rows = query_block(args.num_queries - q);
        const bf16* const queries = args.queries + q * args.query_stride;
        float* const out = args.out + q * args.out_stride;
        switch (rows) {
        case 1: Block::run(args, queries, out, std::make_index_sequence<1>()); break;
        case 2: Block::run(args, queries, out, std::make_index_sequence<2>()); break;
        case 3: Block::run(args, queries, out, std::make_index_sequence<3>()); break;
        case 4: Block::run(args, queries, out, std::make_index_sequence<4>()); break;
        case 5: Block::run(args, queries, out, std::make_index_sequence<5>()); break;
        default: Block::run(args, queries, out, std::make_index_sequence<6>()); break;
        }
        q += rows;
    }
}

/// The first or the second channel of each pair.
template <bool Second>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256 widen_channel(__m256i pairs) noexcept {
    if constexpr (Second) {
        return _mm256_castsi256_ps(
            _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xFFFF0000U))));
    } else {
        return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    }
}

template <bool Second>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512 widen_channel(__m512i pairs) noexcept {
    if constexpr (Second) {
        return _mm512_castsi512_ps(
            _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xFFFF0000U))));
    } else {
        return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xFFFF, pairs, 16));
    }
}

/// Up to 6 x 16 logits: 12 sums, 2 keys and a query; the keys are loaded once for each channel of a pair.
struct bf16_block_avx2 {
    template <bool Second, std::size_t... Row>
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 static void
    add_channel(sums_avx2 (&sums)[sizeof...(Row)],
                const int (&pairs)[sizeof...(Row)],
                const bf16* keys,
                std::index_sequence<Row...>) noexcept {
        const auto* const lanes = reinterpret_cast<const __m256i*>(keys);
        const __m256 a = widen_channel<Second>(_mm256_loadu_si256(lanes));
        const __m256 b = widen_channel<Second>(_mm256_loadu_si256(lanes + 1));
        (add(sums[Row], widen_channel<Second>(_mm256_set1_epi32(pairs[Row])), a, b), ...);
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 static void
    add(sums_avx2& sums, __m256 q, __m256 a, __m256 b) noexcept {
        sums.a = _mm256_fmadd_ps(q, a, sums.a);
        sums.b = _mm256_fmadd_ps(q, b, sums.b);
    }
    template <std::size_t... Row>
    KVCRUSH_TARGET_AVX2 static void run(const bf16_logits_args& args,
                                        const bf16* queries,
                                        float* out,
                                        std::index_sequence<Row...> rows) noexcept {
        const std::size_t stride = args.query_stride;
        for (std::size_t first = 0; first < args.count; first += 16) {
            sums_avx2 sums[sizeof...(Row)];
            ((sums[Row] = {_mm256_setzero_ps(), _mm256_setzero_ps()}), ...);
            const bf16* keys = args.tile + 2 * first;
            std::size_t k = 0;
            for (; k + 2 <= args.head_dim; k += 2, keys += 2 * key_tile) {
                const int pairs[] = {channel_pair(queries + k + Row * stride)...};
                add_channel<false>(sums, pairs, keys, rows);
                add_channel<true>(sums, pairs, keys, rows);
            }
            if (k < args.head_dim) {
                const int last[] = {queries[k + Row * stride].bits...};
                add_channel<false>(sums, last, keys, rows);
            }
            const __m256 scale = _mm256_set1_ps(args.scale);
            (store_scaled(
                 sums[Row], scale, out + Row * args.out_stride + first, args.count - first),
             ...);
        }
    }
};

/// Up to 6 x 64 logits by widening: 24 sums, 4 keys and a query, as above.
struct bf16_block_avx512 {
    template <bool Second, std::size_t... Row>
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static void
    add_channel(sums_avx512 (&sums)[sizeof...(Row)],
                const int (&pairs)[sizeof...(Row)],
                const bf16* keys,
                std::index_sequence<Row...>) noexcept {
        const __m512 a = widen_channel<Second>(_mm512_loadu_si512(keys));
        const __m512 b = widen_channel<Second>(_mm512_loadu_si512(keys + 32));
        const __m512 c = widen_channel<Second>(_mm512_loadu_si512(keys + 64));
        const __m512 d = widen_channel<Second>(_mm512_loadu_si512(keys + 96));
        (add(sums[Row], widen_channel<Second>(_mm512_set1_epi32(pairs[Row])), a, b, c, d), ...);
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static void
    add(sums_avx512& sums, __m512 q, __m512 a, __m512 b, __m512 c, __m512 d) noexcept {
        sums.a = _mm512_fmadd_ps(q, a, sums.a);
        sums.b = _mm512_fmadd_ps(q, b, sums.b);
        sums.c = _mm512_fmadd_ps(q, c, sums.c);
        sums.d = _mm512_fmadd_ps(q, d, sums.d);
    }
    template <std::size_t... Row>
    KVCRUSH_TARGET_AVX512 static void run(const bf16_logits_args& args,
                                          const bf16* queries,
                                          float* out,
                                          std::index_sequence<Row...> rows) noexcept {
        const std::size_t stride = args.query_stride;
        sums_avx512 sums[sizeof...(Row)];
        ((sums[Row] =
              {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()}),
         ...);
        const bf16* keys = args.tile;
        std::size_t k = 0;
        for (; k + 2 <= args.head_dim; k += 2, keys += 2 * key_tile) {
            const int pairs[] = {channel_pair(queries + k + Row * stride)...};
            add_channel<false>(sums, pairs, keys, rows);
            add_channel<true>(sums, pairs, keys, rows);
        }
        if (k < args.head_dim) {
            const int last[] = {queries[k + Row * stride].bits...};
            add_channel<false>(sums, last, keys, rows);
        }
        const __m512 scale = _mm512_set1_ps(args.scale);
        (store_scaled(sums[Row], scale, out + Row * args.out_stride, args.count), ...);
    }
};

/// Up to 6 x 64 logits by vdpbf16ps: 24 sums, 4 keys and a query.
struct bf16_block_dot {
    /// Asks for the lines that a row of logits will fill: at this speed the stores of a block would still wait for memory
    /// when those of the next one come (8 % of the time at 32K tokens, Zen 4).
    [[gnu::always_inline]] static void prefetch_row(const float* out) noexcept {
        __builtin_prefetch(out, 1);
        __builtin_prefetch(out + 16, 1);
        __builtin_prefetch(out + 32, 1);
        __builtin_prefetch(out + 48, 1);
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512_BF16 static __m512
    dot(__m512 sum, __m512i query, __m512i keys) noexcept {
        return _mm512_dpbf16_ps(
            sum, reinterpret_cast<__m512bh>(query), reinterpret_cast<__m512bh>(keys));
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512_BF16 static void
    add(sums_avx512& sums, int pair, __m512i a, __m512i b, __m512i c, __m512i d) noexcept {
        const __m512i q = _mm512_set1_epi32(pair);
        sums.a = dot(sums.a, q, a);
        sums.b = dot(sums.b, q, b);
        sums.c = dot(sums.c, q, c);
        sums.d = dot(sums.d, q, d);
    }
    template <std::size_t... Row>
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512_BF16 static void
    add_pairs(sums_avx512 (&sums)[sizeof...(Row)],
              const int (&pairs)[sizeof...(Row)],
              const bf16* keys,
              std::index_sequence<Row...>) noexcept {
        const __m512i a = _mm512_loadu_si512(keys);
        const __m512i b = _mm512_loadu_si512(keys + 32);
        const __m512i c = _mm512_loadu_si512(keys + 64);
        const __m512i d = _mm512_loadu_si512(keys + 96);
        (add(sums[Row], pairs[Row], a, b, c, d), ...);
    }
    template <std::size_t... Row>
    KVCRUSH_TARGET_AVX512_BF16 static void run(const bf16_logits_args& args,
                                               const bf16* queries,
                                               float* out,
                                               std::index_sequence<Row...> rows) noexcept {
        const std::size_t stride = args.query_stride;
        (prefetch_row(out + Row * args.out_stride), ...);
        sums_avx512 sums[sizeof...(Row)];
        ((sums[Row] =
              {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()}),
         ...);
        const bf16* keys = args.tile;
        std::size_t k = 0;
        for (; k + 2 <= args.head_dim; k += 2, keys += 2 * key_tile) {
            const int pairs[] = {channel_pair(queries + k + Row * stride)...};
            add_pairs(sums, pairs, keys, rows);
        }
        if (k < args.head_dim) {
            const int last[] = {queries[k + Row * stride].bits...};
            add_pairs(sums, last, keys, rows);
        }
        const __m512 scale = _mm512_set1_ps(args.scale);
        (store_scaled(sums[Row], scale, out + Row * args.out_stride, args.count), ...);
    }
};

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

/// Transposes up to key_tile keys into one tile; missing tokens become zero. Bits are copied as they are.
/// @param[in]  rows      the first channel of each key; the channels of one key are contiguous
/// @param[in]  head_dim  channels per key
/// @param[out] tile      bf16_tile_size(head_dim) elements, [head_dim / 2 rounded up, key_tile, 2]; fastest when it starts
///                       on a cache line
/// @pre   rows.size() <= key_tile
inline void pack_key_tile(std::span<const bf16* const> rows,
                          std::size_t head_dim,
                          bf16* tile,
                          isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(rows.size() <= key_tile);
    const detail::pack_bf16_tile_args args{rows.data(), rows.size(), head_dim, tile};
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512:
    case isa::avx2: return detail::pack_bf16_tile_avx2(args);
#endif
    default: return detail::pack_bf16_tile_scalar(args);
    }
}

/// The same for keys that lie `row_stride` elements apart.
inline void pack_key_tile(const bf16* rows,
                          std::size_t row_stride,
                          std::size_t count,
                          std::size_t head_dim,
                          bf16* tile,
                          isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(count <= key_tile);
    const bf16* each[key_tile];
    for (std::size_t t = 0; t < count; ++t) {
        each[t] = rows + t * row_stride;
    }
    pack_key_tile(std::span<const bf16* const>(each, count), head_dim, tile, at_most);
}

/// Scaled dot products of every query with the first `count` keys of a tile.
///
///     out[q * out_stride + t] = scale * sum over k of queries[q * query_stride + k] * key[t, k]
/// @param[in]  queries  num_queries rows of head_dim contiguous channels; simd::from_float narrows f32 queries
/// @param[in]  tile     from pack_key_tile
/// @param[out] out      rows of `count` logits; nothing else is written
/// @pre   count <= key_tile
/// @note  2 * 64 * num_queries * head_dim operations whatever `count` is (AVX2: in steps of 16 tokens). Only has_bf16()
///        makes it faster than the f32 kernels.
inline void tile_logits(const bf16* queries,
                        std::size_t query_stride,
                        std::size_t num_queries,
                        const bf16* tile,
                        std::size_t head_dim,
                        float scale,
                        float* out,
                        std::size_t out_stride,
                        std::size_t count,
                        isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(count <= key_tile);
    const detail::bf16_logits_args args{
        queries, query_stride, num_queries, tile, head_dim, scale, out, out_stride, count};
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512:
        return has_bf16() ? detail::bf16_logits_by_blocks<detail::bf16_block_dot>(args)
                          : detail::bf16_logits_by_blocks<detail::bf16_block_avx512>(args);
    case isa::avx2: return detail::bf16_logits_by_blocks<detail::bf16_block_avx2>(args);
#endif
    default: return detail::bf16_logits_scalar(args);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
