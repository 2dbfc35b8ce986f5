// SPDX-License-Identifier: Apache-2.0
/// @file
/// Attention over rows of a codebook in integer arithmetic, on AVX-512 with VNNI and VBMI: centroids, queries and weights
/// are rounded to 8 bits.
///
/// Centroids: 127 for the largest one. Queries: 127 for the largest channel of each. Weights, times the norms of their
/// rows: 255 for the largest of a tile; what rounding drops of one row another one gets, because thresholds differ from
/// row to row, so that sums over many small weights keep their size. With q, w and c those largest values, errors are at
/// most
///     logit       (q / 254 + q / 254) times norm sum |c| / sqrt(dim)
///     output      w / 255 times sum over the tile of |c|, and c / 254 times the sum of weights
///
/// vpmultishiftqb brings each code into a byte of its own, with bits of its neighbour above it; vpermb reads the low 6
/// bits of an index, and its table repeats.
#pragma once

#include <kvcrush/attend/detail/integer_kernels_avx512.hpp>
#include <kvcrush/attend/detail/row_loaders_avx512.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/codec/lloyd_max.hpp>
#include <kvcrush/config.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Rows are taken 64 channels at a time.
[[nodiscard]] constexpr bool suits_integer_codebook(std::size_t dim) noexcept {
    return dim % 64 == 0 && dim <= integer_max_dim;
}

/// What unpacking the codes of 64 channels reads. Vector v of four has 16 channels of four rows. `starts` is where the
/// 16 bytes lie that hold its codes, `skip` where in those its channels begin.
template <std::size_t Bits>
struct codebook_layout {
    static constexpr std::size_t size = std::size_t{1} << Bits;
    static constexpr float largest = lloyd_max<Bits>::centroids[size - 1];
    static constexpr std::size_t block_bytes = 8 * Bits;
    /// From the first byte of the codes of a block. 24 bytes of 3-bit codes: one load begins in front of them and one ends
    /// with them, because there may be nothing behind.
    static constexpr std::ptrdiff_t start(std::size_t v) noexcept {
        return Bits == 4 ? (v < 2 ? 0 : 16) : Bits == 3 ? (v < 2 ? -2 : 8) : 0;
    }
    static constexpr std::size_t skip(std::size_t v) noexcept {
        return Bits == 4 ? v % 2 * 8 : Bits == 3 ? (v < 2 ? 2 : 4) + v % 2 * 6 : v * 4;
    }
    /// Which eight channels of the block, from 8 * unit on, stand in half h of the row's part of vector v.
    static constexpr std::size_t unit(std::size_t v, std::size_t h) noexcept {
        return Bits == 2 ? 4 * h + v : v / 2 * 4 + 2 * h + v % 2;
    }

    using bytes = std::array<std::uint8_t, 64>;

    /// round(127 centroid / largest), plus `shift`, of each index.
    static constexpr bytes table(int shift) noexcept {
        bytes all{};
        for (std::size_t k = 0; k < 64; ++k) {
            const float x = 127.0F * lloyd_max<Bits>::centroids[k % size] / largest;
            const int whole = static_cast<int>(x < 0.0F ? x - 0.5F : x + 0.5F);
            all[k] = static_cast<std::uint8_t>(whole + shift);
        }
        return all;
    }
    alignas(64) static constexpr bytes with_sign = table(0);
    alignas(64) static constexpr bytes without_sign = table(128);

    /// For vector v, or v - 2 where the loads have the same form, in the order of unit(): first bits in each half.
    static constexpr bytes shifts_by_row(std::size_t v) noexcept {
        bytes all{};
        for (std::size_t i = 0; i < 64; ++i) {
            const std::size_t base = Bits == 3 && i % 16 < 8 ? 16 : 0;
            const std::size_t first = Bits == 2 ? 8 * v : v % 2 * 8;
            all[i] = static_cast<std::uint8_t>((base + Bits * (first + i % 8)) % 64);
        }
        return all;
    }
    alignas(64) static constexpr std::array<bytes, 4> by_row = {
        shifts_by_row(0), shifts_by_row(1), shifts_by_row(2), shifts_by_row(3)};

    /// Two bytes of each of four rows in 64 bits: those with the codes of two channels.
    static constexpr bytes pairs_of_channels(std::size_t v) noexcept {
        bytes all{};
        for (std::size_t i = 0; i < 64; ++i) {
            const std::size_t row = i % 8 / 2;
            const std::size_t at = skip(v) + i / 8 * 2 * Bits / 8 + i % 2;
            all[i] = static_cast<std::uint8_t>(16 * row + (at < 16 ? at : 15));
        }
        return all;
    }
    alignas(64) static constexpr std::array<bytes, 4> pairs = {
        pairs_of_channels(0), pairs_of_channels(1), pairs_of_channels(2), pairs_of_channels(3)};

    /// Byte r of each 32 bits: the channel in row r.
    static constexpr bytes shifts_by_channel() noexcept {
        bytes all{};
        for (std::size_t i = 0; i < 64; ++i) {
            const std::size_t row = i % 4;
            const std::size_t odd = i % 8 / 4;
            all[i] = static_cast<std::uint8_t>(16 * row + i / 8 * 2 * Bits % 8 + odd * Bits);
        }
        return all;
    }
    alignas(64) static constexpr bytes by_channel = shifts_by_channel();
};

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512_VNNI inline __m512i
sixty_four(const std::array<std::uint8_t, 64>& from) noexcept {
    return _mm512_load_si512(from.data());
}

/// The bytes that hold vector V of the block at `offset`, of four rows.
template <std::size_t Bits, std::size_t V>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512_VNNI inline __m512i
codebook_bytes(const std::byte* const* rows, std::size_t offset) noexcept {
    constexpr std::ptrdiff_t start = codebook_layout<Bits>::start(V);
    return four_rows(rows, static_cast<std::size_t>(static_cast<std::ptrdiff_t>(offset) + start));
}

/// Centroids plus 128 of 16 channels of four rows, row by row.
template <std::size_t Bits, std::size_t V>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512_VNNI inline __m512i
codebook_keys(const std::byte* const* rows, std::size_t offset, __m512i table) noexcept {
    using layout = codebook_layout<Bits>;
    __m512i x = codebook_bytes<Bits, V>(rows, offset);
    if constexpr (Bits == 3 && V >= 2) {
        x = _mm512_bsrli_epi128(x, 2);
    }
    const __m512i codes =
        _mm512_maskz_multishift_epi64_epi8(~0ULL, sixty_four(layout::by_row[V]), x);
    return _mm512_maskz_permutexvar_epi8(~0ULL, codes, table);
}

/// Queries as signed bytes, one after the other:
///     float step, 12 bytes unused; 4 x int32 that correct for codes being unsigned; per block four times 16 channels
template <std::size_t Bits>
struct codebook_queries {
    static constexpr std::size_t head = 32;
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
            __m512i sum = _mm512_setzero_si512();
            for (std::size_t c = 0; c < dim; c += 16) {
                __m512i some = _mm512_maskz_cvtps_epi32(
                    0xFFFF, _mm512_mul_ps(_mm512_loadu_ps(queries + c), per_step));
                some = _mm512_maskz_min_epi32(0xFFFF, some, _mm512_set1_epi32(127));
                some = _mm512_maskz_max_epi32(0xFFFF, some, _mm512_set1_epi32(-127));
                sum = _mm512_add_epi32(sum, some);
                _mm_store_si128(reinterpret_cast<__m128i*>(whole + c),
                                _mm512_maskz_cvtepi32_epi8(0xFFFF, some));
            }
            std::int32_t lanes[16];
            _mm512_storeu_si512(lanes, sum);
            std::int32_t correction[4];
            for (std::size_t i = 0; i < 4; ++i) {
                correction[i] =
                    -128 * (lanes[4 * i] + lanes[4 * i + 1] + lanes[4 * i + 2] + lanes[4 * i + 3]);
            }
            std::memcpy(out, &step, sizeof step);
            std::memcpy(out + 16, correction, sizeof correction);
            for (std::size_t c = 0; c < dim; c += 64) {
                for (std::size_t i = 0; i < 8; ++i) {
                    const std::size_t unit = codebook_layout<Bits>::unit(i / 2, i % 2);
                    std::memcpy(out + head + c + 8 * i, whole + c + 8 * unit, 8);
                }
            }
        }
    }
};

/// Vector V of a block for rows t ... t + 7. I is 2 * query + half of the rows.
template <std::size_t Bits, std::size_t V, std::size_t... I>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512_VNNI inline void
add_codebook_products(sums_of_bytes* sums,
                      const std::byte* const* rows,
                      std::size_t offset,
                      const std::byte* const* queries,
                      std::size_t at,
                      __m512i table,
                      std::index_sequence<I...>) noexcept {
    const __m512i k[2] = {codebook_keys<Bits, V>(rows, offset, table),
                          codebook_keys<Bits, V>(rows + 4, offset, table)};
    ((add_products_of_bytes(sums[I], k[I % 2], four_times(queries[I / 2] + at + 16 * V))), ...);
}

template <std::size_t Bits, std::size_t... I>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512_VNNI inline void
codebook_dots_block(const std::byte* const* rows,
                    const std::byte* const* queries,
                    __m512 steps,
                    std::size_t dim,
                    const float* scales,
                    float* out,
                    std::index_sequence<I...> indices) noexcept {
    const __m512i table = sixty_four(codebook_layout<Bits>::without_sign);
    sums_of_bytes sums[sizeof...(I)];
    ((sums[I] = reinterpret_cast<sums_of_bytes>(four_times(queries[I / 2] + 16))), ...);
    std::size_t offset = 2;
    for (std::size_t at = 32; at < 32 + dim; at += 64, offset += 8 * Bits) {
        add_codebook_products<Bits, 0>(sums, rows, offset, queries, at, table, indices);
        add_codebook_products<Bits, 1>(sums, rows, offset, queries, at, table, indices);
        add_codebook_products<Bits, 2>(sums, rows, offset, queries, at, table, indices);
        add_codebook_products<Bits, 3>(sums, rows, offset, queries, at, table, indices);
    }
    const __m512 zero = _mm512_setzero_ps();
    __m512 whole[8] = {zero, zero, zero, zero, zero, zero, zero, zero};
    ((whole[I] = whole_floats(sums[I])), ...);
    const __m512 first = add_row_lanes(whole[0], whole[2], whole[4], whole[6]);
    const __m512 second = add_row_lanes(whole[1], whole[3], whole[5], whole[7]);
    const __m512 gains[2] = {_mm512_maskz_broadcast_f32x4(0xFFFF, _mm_loadu_ps(scales)),
                             _mm512_maskz_broadcast_f32x4(0xFFFF, _mm_loadu_ps(scales + 4))};
    constexpr std::size_t num_queries = sizeof...(I) / 2;
    store_logits_avx512<num_queries>(_mm512_mul_ps(_mm512_mul_ps(steps, first), gains[0]), out);
    store_logits_avx512<num_queries>(_mm512_mul_ps(_mm512_mul_ps(steps, second), gains[1]),
                                     out + 4);
}

template <std::size_t Bits, std::size_t Queries>
KVCRUSH_TARGET_AVX512_VNNI inline void codebook_dots_tile(const tile_rows& rows,
                                                          const std::byte* queries,
                                                          std::size_t dim,
                                                          const float* scales,
                                                          bool prefetch,
                                                          float* out) noexcept {
    const std::size_t stride = codebook_queries<Bits>::query_bytes(dim);
    const std::byte* each[4] = {};
    alignas(64) float steps[16] = {};
    for (std::size_t q = 0; q < Queries; ++q) {
        each[q] = queries + q * stride;
        float step = 0.0F;
        std::memcpy(&step, each[q], sizeof step);
        std::fill_n(steps + 4 * q, 4, step);
    }
    const std::size_t row_bytes = prefetch ? codebook_rows_avx512<Bits>::offset(dim) : 0;
    for (std::size_t t = 0; t < rows.count; t += 8) {
        for (std::size_t i = t; i < t + 8; ++i) {
            prefetch_row(rows, i, 0, row_bytes);
        }
        codebook_dots_block<Bits>(rows.group + t,
                                  each,
                                  _mm512_load_ps(steps),
                                  dim,
                                  scales + t,
                                  out + t,
                                  std::make_index_sequence<2 * Queries>());
    }
}

/// What a row's integers are multiplied with, [attend_tile], zeros behind the rows.
template <std::size_t Bits>
KVCRUSH_TARGET_AVX512_VNNI inline void
codebook_scales(const tile_rows& rows, std::size_t dim, float* out) noexcept {
    constexpr float step = codebook_layout<Bits>::largest / 127.0F;
    first_halves_avx512(rows, step / std::sqrt(static_cast<float>(dim)), out);
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

/// What is added before a weight is rounded down, evenly spread over [0, 1) in every run of rows: multiples of the golden
/// section.
alignas(64) inline constexpr std::array<float, attend_tile> rounding_thresholds = [] {
    std::array<float, attend_tile> all{};
    double at = 0.5 / static_cast<double>(attend_tile);
    for (float& one : all) {
        one = static_cast<float>(at);
        at += 0.6180339887498949;
        at -= at >= 1.0 ? 1.0 : 0.0;
    }
    return all;
}();

/// Weights times scales as bytes, up to four queries. All are at least 0.
struct codebook_weights {
    alignas(64) std::uint8_t whole[4 * attend_tile];
    float step[4];
};

KVCRUSH_TARGET_AVX512_VNNI inline void round_codebook_weights(const float* weights,
                                                              const float* scales,
                                                              std::size_t num_queries,
                                                              codebook_weights& out) noexcept {
    for (std::size_t q = 0; q < num_queries; ++q, weights += attend_tile) {
        const __m512 x[4] = {
            _mm512_mul_ps(_mm512_loadu_ps(weights), _mm512_load_ps(scales)),
            _mm512_mul_ps(_mm512_loadu_ps(weights + 16), _mm512_load_ps(scales + 16)),
            _mm512_mul_ps(_mm512_loadu_ps(weights + 32), _mm512_load_ps(scales + 32)),
            _mm512_mul_ps(_mm512_loadu_ps(weights + 48), _mm512_load_ps(scales + 48))};
        const float bound = simd::detail::largest_lane_avx512(
            _mm512_maskz_max_ps(0xFFFF,
                                _mm512_maskz_max_ps(0xFFFF, x[0], x[1]),
                                _mm512_maskz_max_ps(0xFFFF, x[2], x[3])));
        // Bounds that are tiny would have an infinite inverse; such a tile adds nothing that a float can tell.
        const bool adds = bound > 0x1p-100F;
        out.step[q] = adds ? bound / 255.0F : 0.0F;
        const __m512 per_step = _mm512_set1_ps(adds ? 255.0F / bound : 0.0F);
        for (std::size_t i = 0; i < 4; ++i) {
            const __m512 up = _mm512_load_ps(rounding_thresholds.data() + 16 * i);
            const __m512i whole =
                _mm512_maskz_cvttps_epi32(0xFFFF, _mm512_fmadd_ps(x[i], per_step, up));
            _mm_store_si128(reinterpret_cast<__m128i*>(out.whole + q * attend_tile + 16 * i),
                            _mm512_maskz_cvtusepi32_epi8(0xFFFF, whole));
        }
    }
}

/// 16 channels of four rows, the rows of each channel side by side.
template <std::size_t Bits, std::size_t V>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512_VNNI inline __m512i
codebook_values(const std::byte* const* rows, std::size_t offset, __m512i table) noexcept {
    using layout = codebook_layout<Bits>;
    const __m512i pairs = _mm512_maskz_permutexvar_epi8(
        ~0ULL, sixty_four(layout::pairs[V]), codebook_bytes<Bits, V>(rows, offset));
    const __m512i codes =
        _mm512_maskz_multishift_epi64_epi8(~0ULL, sixty_four(layout::by_channel), pairs);
    return _mm512_maskz_permutexvar_epi8(~0ULL, codes, table);
}

/// 64 channels from c on. I is 4 * query + vector.
template <std::size_t Bits, std::size_t... I>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512_VNNI inline void
codebook_accumulate_block(const tile_rows& rows,
                          const codebook_weights& weights,
                          std::size_t c,
                          std::size_t dim,
                          bool prefetch,
                          float* out,
                          std::index_sequence<I...>) noexcept {
    const __m512i table = sixty_four(codebook_layout<Bits>::with_sign);
    const std::size_t offset = codebook_rows_avx512<Bits>::offset(c);
    const std::size_t last = prefetch ? codebook_rows_avx512<Bits>::offset(c + 64) : 0;
    sums_of_bytes sums[sizeof...(I)];
    ((sums[I] = sums_of_bytes{}), ...);
    for (std::size_t t = 0; t < rows.count; t += 4) {
        for (std::size_t i = t; i < t + 4; ++i) {
            prefetch_row(rows, i, offset - 2, last);
        }
        const std::byte* const* const r = rows.group + t;
        const __m512i v[4] = {codebook_values<Bits, 0>(r, offset, table),
                              codebook_values<Bits, 1>(r, offset, table),
                              codebook_values<Bits, 2>(r, offset, table),
                              codebook_values<Bits, 3>(r, offset, table)};
        ((add_products_of_bytes(
             sums[I], four_weights(weights.whole + I / 4 * attend_tile + t), v[I % 4])),
         ...);
    }
    (_mm512_storeu_ps(out + I / 4 * dim + c + I % 4 * 16,
                      _mm512_fmadd_ps(whole_floats(sums[I]),
                                      _mm512_set1_ps(weights.step[I / 4]),
                                      _mm512_loadu_ps(out + I / 4 * dim + c + I % 4 * 16))),
     ...);
}

template <std::size_t Bits, std::size_t Queries>
KVCRUSH_TARGET_AVX512_VNNI inline void codebook_accumulate_tile(const tile_rows& rows,
                                                                const float* weights,
                                                                const float* scales,
                                                                std::size_t dim,
                                                                bool prefetch,
                                                                float* out) noexcept {
    codebook_weights rounded;
    round_codebook_weights(weights, scales, Queries, rounded);
    for (std::size_t c = 0; c < dim; c += 64) {
        codebook_accumulate_block<Bits>(
            rows, rounded, c, dim, prefetch, out, std::make_index_sequence<4 * Queries>());
    }
}

/// sums[q * dim + c] += sum over t of weights[q * attend_tile + t] * row t
template <std::size_t Bits>
KVCRUSH_TARGET_AVX512_VNNI inline void codebook_accumulate(const tile_rows& rows,
                                                           const float* weights,
                                                           std::size_t num_queries,
                                                           std::size_t dim,
                                                           float* sums) noexcept {
    alignas(64) float scales[attend_tile];
    codebook_scales<Bits>(rows, dim, scales);
    for (std::size_t q = 0; q < num_queries; q += 4) {
        const float* const from = weights + q * attend_tile;
        float* const to = sums + q * dim;
        switch (num_queries - q) {
        case 1: codebook_accumulate_tile<Bits, 1>(rows, from, scales, dim, q == 0, to); break;
        case 2: codebook_accumulate_tile<Bits, 2>(rows, from, scales, dim, q == 0, to); break;
        case 3: codebook_accumulate_tile<Bits, 3>(rows, from, scales, dim, q == 0, to); break;
        default: codebook_accumulate_tile<Bits, 4>(rows, from, scales, dim, q == 0, to); break;
        }
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
#endif
