// SPDX-License-Identifier: Apache-2.0
/// @file
/// Dot products of many queries with tiles of keys: the matrix product of attention scores.
///
/// Keys are packed once per tile, channel by channel, so that one vector load brings one channel of
/// 16 (8) tokens and no sum ever runs across lanes. Each logit is one chain of fused multiply-adds
/// over the channels in ascending order: AVX2 and AVX-512 agree bit for bit; the scalar rung rounds
/// products too where the compiler does not fuse. Error of a logit before scaling: at most
/// (head_dim + 1) * 2^-23 * sum |q| |k|.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// Tokens per packed tile: four AVX-512 registers; at 128 channels a tile (32 KiB) still fits L1.
inline constexpr std::size_t key_tile = 64;

namespace detail {

struct pack_tile_args {
    const float* const* rows;
    std::size_t count;
    std::size_t head_dim;
    float* tile;
};

struct logits_args {
    const float* queries;
    std::size_t query_stride;
    std::size_t num_queries;
    const float* tile;
    std::size_t head_dim;
    float scale;
    float* out;
    std::size_t out_stride;
    std::size_t count;
};

/// Queries of the next register block: 6, or an even split of what is left, as blocks of 1 or 2
/// cannot hide the latency of a multiply-add.
constexpr std::size_t query_block(std::size_t left) noexcept {
    return left >= 12 ? 6 : left > 6 ? (left + 1) / 2 : left;
}

/// Tokens [first, last) and channels [channel, head_dim) one by one; tokens behind count become
/// zero.
inline void pack_rest(const pack_tile_args& args,
                      std::size_t first,
                      std::size_t last,
                      std::size_t channel) noexcept {
    for (std::size_t k = channel; k < args.head_dim; ++k) {
        float* const out = args.tile + k * key_tile;
        std::size_t t = first;
        for (; t < (std::min)(last, args.count); ++t) {
            out[t] = args.rows[t][k];
        }
        for (; t < last; ++t) {
            out[t] = 0.0F;
        }
    }
}

inline void pack_key_tile_scalar(const pack_tile_args& args) noexcept {
    pack_rest(args, 0, key_tile, 0);
}

inline void tile_logits_scalar(const logits_args& args) noexcept {
    constexpr std::size_t width = 16; // sums of one step stay in registers
    for (std::size_t q = 0; q < args.num_queries; ++q) {
        const float* const query = args.queries + q * args.query_stride;
        float* const out = args.out + q * args.out_stride;
        for (std::size_t t = 0; t < args.count; t += width) {
            float sum[width] = {};
            for (std::size_t k = 0; k < args.head_dim; ++k) {
                const float* const keys = args.tile + k * key_tile + t;
                for (std::size_t i = 0; i < width; ++i) {
                    sum[i] += query[k] * keys[i];
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

/// Blocks of 8 tokens x 4 channels: lane-wise 4 x 4 transposition of two groups of four tokens at a
/// time. Taking 16 tokens with AVX-512 is not faster (Zen 4), and half as fast where keys lie 4096
/// bytes apart, as they then fall out of L1.
KVCRUSH_TARGET_AVX2 inline void pack_key_tile_avx2(const pack_tile_args& args) noexcept {
    const std::size_t whole = args.head_dim / 4 * 4;
    std::size_t t = 0;
    for (; t + 8 <= args.count; t += 8) {
        const float* const* const rows = args.rows + t;
        for (std::size_t k = 0; k < whole; k += 4) {
            const __m256 a = _mm256_loadu2_m128(rows[4] + k, rows[0] + k);
            const __m256 b = _mm256_loadu2_m128(rows[5] + k, rows[1] + k);
            const __m256 c = _mm256_loadu2_m128(rows[6] + k, rows[2] + k);
            const __m256 d = _mm256_loadu2_m128(rows[7] + k, rows[3] + k);
            const __m256d ab_low = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
            const __m256d ab_high = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
            const __m256d cd_low = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
            const __m256d cd_high = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
            float* const out = args.tile + k * key_tile + t;
            _mm256_storeu_ps(out, _mm256_castpd_ps(_mm256_unpacklo_pd(ab_low, cd_low)));
            _mm256_storeu_ps(out + key_tile, _mm256_castpd_ps(_mm256_unpackhi_pd(ab_low, cd_low)));
            _mm256_storeu_ps(out + 2 * key_tile,
                             _mm256_castpd_ps(_mm256_unpacklo_pd(ab_high, cd_high)));
            _mm256_storeu_ps(out + 3 * key_tile,
                             _mm256_castpd_ps(_mm256_unpackhi_pd(ab_high, cd_high)));
        }
    }
    pack_rest(args, 0, t, whole);
    pack_rest(args, t, key_tile, 0);
}

struct sums_avx2 {
    __m256 a, b;
};

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void
add_products(sums_avx2& sums, float query, __m256 a, __m256 b) noexcept {
    const __m256 q = _mm256_set1_ps(query);
    sums.a = _mm256_fmadd_ps(q, a, sums.a);
    sums.b = _mm256_fmadd_ps(q, b, sums.b);
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void
store_scaled(const sums_avx2& sums, __m256 scale, float* out, std::size_t count) noexcept {
    if (count >= 16) {
        _mm256_storeu_ps(out, _mm256_mul_ps(sums.a, scale));
        _mm256_storeu_ps(out + 8, _mm256_mul_ps(sums.b, scale));
        return;
    }
    _mm256_maskstore_ps(out, first_lanes_avx2(count), _mm256_mul_ps(sums.a, scale));
    if (count > 8) {
        _mm256_maskstore_ps(out + 8, first_lanes_avx2(count - 8), _mm256_mul_ps(sums.b, scale));
    }
}

/// Up to 6 x 16 logits: 12 sums, 2 keys and a query fill the 16 registers. Rows are spelt out by
/// the index sequence, as sums in an array that a loop walks over would live in memory.
template <std::size_t... Row>
KVCRUSH_TARGET_AVX2 inline void logits_block_avx2(const logits_args& args,
                                                  const float* queries,
                                                  float* out,
                                                  std::size_t first,
                                                  std::index_sequence<Row...>) noexcept {
    const std::size_t stride = args.query_stride;
    sums_avx2 sums[sizeof...(Row)];
    ((sums[Row] = {_mm256_setzero_ps(), _mm256_setzero_ps()}), ...);
    const float* keys = args.tile + first;
    for (std::size_t k = 0; k < args.head_dim; ++k, keys += key_tile) {
        const __m256 a = _mm256_loadu_ps(keys);
        const __m256 b = _mm256_loadu_ps(keys + 8);
        (add_products(sums[Row], queries[k + Row * stride], a, b), ...);
    }
    const __m256 scale = _mm256_set1_ps(args.scale);
    (store_scaled(sums[Row], scale, out + Row * args.out_stride + first, args.count - first), ...);
}

/// One query with all 64 tokens, in eight chains: few queries cannot hide the latency of a multiply-add otherwise, and
/// the tile is read once and in order, as memory likes it.
template <std::size_t... Part>
KVCRUSH_TARGET_AVX2 inline void logits_row_avx2(const logits_args& args,
                                                const float* query,
                                                float* out,
                                                std::index_sequence<Part...>) noexcept {
    sums_avx2 sums[sizeof...(Part)];
    ((sums[Part] = {_mm256_setzero_ps(), _mm256_setzero_ps()}), ...);
    const float* keys = args.tile;
    for (std::size_t k = 0; k < args.head_dim; ++k, keys += key_tile) {
        (add_products(sums[Part],
                      query[k],
                      _mm256_loadu_ps(keys + Part * 16),
                      _mm256_loadu_ps(keys + Part * 16 + 8)),
         ...);
    }
    const __m256 scale = _mm256_set1_ps(args.scale);
    ((Part * 16 < args.count
          ? store_scaled(sums[Part], scale, out + Part * 16, args.count - Part * 16)
          : void()),
     ...);
}

KVCRUSH_TARGET_AVX2 inline void tile_logits_avx2(const logits_args& args) noexcept {
    for (std::size_t q = 0; q < args.num_queries;) {
        const std::size_t rows = query_block(args.num_queries - q);
        const float* const queries = args.queries + q * args.query_stride;
        float* const out = args.out + q * args.out_stride;
        if (rows < 4) {
            for (std::size_t r = 0; r < rows; ++r) {
                logits_row_avx2(args,
                                queries + r * args.query_stride,
                                out + r * args.out_stride,
                                std::make_index_sequence<key_tile / 16>());
            }
            q += rows;
            continue;
        }
        for (std::size_t first = 0; first < args.count; first += 16) {
            switch (rows) {
            case 4:
                logits_block_avx2(args, queries, out, first, std::make_index_sequence<4>());
                break;
            case 5:
                logits_block_avx2(args, queries, out, first, std::make_index_sequence<5>());
                break;
            default:
                logits_block_avx2(args, queries, out, first, std::make_index_sequence<6>());
                break;
            }
        }
        q += rows;
    }
}

struct sums_avx512 {
    __m512 a, b, c, d;
};

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
add_products(sums_avx512& sums, float query, __m512 a, __m512 b, __m512 c, __m512 d) noexcept {
    const __m512 q = _mm512_set1_ps(query);
    sums.a = _mm512_fmadd_ps(q, a, sums.a);
    sums.b = _mm512_fmadd_ps(q, b, sums.b);
    sums.c = _mm512_fmadd_ps(q, c, sums.c);
    sums.d = _mm512_fmadd_ps(q, d, sums.d);
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
store_scaled(const sums_avx512& sums, __m512 scale, float* out, std::size_t count) noexcept {
    _mm512_mask_storeu_ps(out, first_lanes_avx512(count), _mm512_mul_ps(sums.a, scale));
    if (count > 16) {
        _mm512_mask_storeu_ps(
            out + 16, first_lanes_avx512(count - 16), _mm512_mul_ps(sums.b, scale));
    }
    if (count > 32) {
        _mm512_mask_storeu_ps(
            out + 32, first_lanes_avx512(count - 32), _mm512_mul_ps(sums.c, scale));
    }
    if (count > 48) {
        _mm512_mask_storeu_ps(
            out + 48, first_lanes_avx512(count - 48), _mm512_mul_ps(sums.d, scale));
    }
}

/// Up to 6 x 64 logits: 24 sums, 4 keys and a query in 32 registers.
template <std::size_t... Row>
KVCRUSH_TARGET_AVX512 inline void logits_block_avx512(const logits_args& args,
                                                      const float* queries,
                                                      float* out,
                                                      std::index_sequence<Row...>) noexcept {
    const std::size_t stride = args.query_stride;
    sums_avx512 sums[sizeof...(Row)];
    ((sums[Row] =
          {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()}),
     ...);
    const float* keys = args.tile;
    for (std::size_t k = 0; k < args.head_dim; ++k, keys += key_tile) {
        const __m512 a = _mm512_loadu_ps(keys);
        const __m512 b = _mm512_loadu_ps(keys + 16);
        const __m512 c = _mm512_loadu_ps(keys + 32);
        const __m512 d = _mm512_loadu_ps(keys + 48);
        (add_products(sums[Row], queries[k + Row * stride], a, b, c, d), ...);
    }
    const __m512 scale = _mm512_set1_ps(args.scale);
    (store_scaled(sums[Row], scale, out + Row * args.out_stride, args.count), ...);
}

KVCRUSH_TARGET_AVX512 inline void tile_logits_avx512(const logits_args& args) noexcept {
    for (std::size_t q = 0; q < args.num_queries;) {
        const std::size_t rows = query_block(args.num_queries - q);
        const float* const queries = args.queries + q * args.query_stride;
        float* const out = args.out + q * args.out_stride;
        switch (rows) {
        case 1: logits_block_avx512(args, queries, out, std::make_index_sequence<1>()); break;
        case 2: logits_block_avx512(args, queries, out, std::make_index_sequence<2>()); break;
        case 3: logits_block_avx512(args, queries, out, std::make_index_sequence<3>()); break;
        case 4: logits_block_avx512(args, queries, out, std::make_index_sequence<4>()); break;
        case 5: logits_block_avx512(args, queries, out, std::make_index_sequence<5>()); break;
        default: logits_block_avx512(args, queries, out, std::make_index_sequence<6>()); break;
        }
        q += rows;
    }
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

/// Transposes up to key_tile keys into one tile; missing tokens become zero.
/// @param[in]  rows      the first channel of each key; the channels of one key are contiguous
/// @param[in]  head_dim  channels per key
/// @param[out] tile      [head_dim, key_tile]; fastest when it starts on a cache line
/// @pre   rows.size() <= key_tile
inline void pack_key_tile(std::span<const float* const> rows,
                          std::size_t head_dim,
                          float* tile,
                          isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(rows.size() <= key_tile);
    const detail::pack_tile_args args{rows.data(), rows.size(), head_dim, tile};
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512:
    case isa::avx2: return detail::pack_key_tile_avx2(args);
#endif
    default: return detail::pack_key_tile_scalar(args);
    }
}

/// The same for keys that lie `row_stride` floats apart.
inline void pack_key_tile(const float* rows,
                          std::size_t row_stride,
                          std::size_t count,
                          std::size_t head_dim,
                          float* tile,
                          isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(count <= key_tile);
    const float* each[key_tile];
    for (std::size_t t = 0; t < count; ++t) {
        each[t] = rows + t * row_stride;
    }
    pack_key_tile({each, count}, head_dim, tile, at_most);
}

/// Scaled dot products of every query with the first `count` keys of a tile.
///
///     out[q * out_stride + t] = scale * sum over k of queries[q * query_stride + k] * tile[k, t]
/// @param[in]  queries  num_queries rows of head_dim contiguous channels
/// @param[in]  tile     [head_dim, key_tile], from pack_key_tile
/// @param[out] out      rows of `count` logits; nothing else is written
/// @pre   count <= key_tile
/// @note  2 * 64 * num_queries * head_dim operations whatever `count` is (AVX2, four queries and more: in steps of 16
///        tokens)
inline void tile_logits(const float* queries,
                        std::size_t query_stride,
                        std::size_t num_queries,
                        const float* tile,
                        std::size_t head_dim,
                        float scale,
                        float* out,
                        std::size_t out_stride,
                        std::size_t count,
                        isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(count <= key_tile);
    const detail::logits_args args{
        queries, query_stride, num_queries, tile, head_dim, scale, out, out_stride, count};
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::tile_logits_avx512(args);
    case isa::avx2: return detail::tile_logits_avx2(args);
#endif
    default: return detail::tile_logits_scalar(args);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
