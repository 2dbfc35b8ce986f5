// SPDX-License-Identifier: Apache-2.0
/// @file
/// Products of a tile of rows with queries, and its weighted sum, in fp32 on AVX2, for any row loader: two rows for four
/// queries at a time. Error of a logit: at most (dim / 8 + 4) * 2^-24 * sum |q| |k|, of a weighted sum of n rows:
/// n * 2^-24 * sum |w| |v|.
#pragma once

#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/detail/convert_avx.hpp>
#include <kvcrush/simd/detail/lanes.hpp>

#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace detail {

template <typename T>
struct dense_rows_avx2 {
    static constexpr bool has_gain = false;
    /// Channels c ... c + 7.
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 static __m256 load(const std::byte* row,
                                                                  std::size_t c) noexcept {
        const T* const from = reinterpret_cast<const T*>(row) + c;
        if constexpr (std::is_same_v<T, float>) {
            return _mm256_loadu_ps(from);
        } else {
            return simd::detail::widen_avx2<T>(
                _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
        }
    }
    /// Channels c ... c + rest - 1, rest < 8, then zeros.
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 static __m256
    load_first(const std::byte* row, std::size_t c, std::size_t rest) noexcept {
        T kept[8] = {};
        std::memcpy(kept, row + c * sizeof(T), rest * sizeof(T));
        return load(reinterpret_cast<const std::byte*>(kept), 0);
    }
};

/// float scale, then signed bytes. The scale is left to logits and weights.
struct int8_rows_avx2 {
    static constexpr bool has_gain = true;
    static float gain(const std::byte* row) noexcept {
        float scale = 0.0F;
        std::memcpy(&scale, row, sizeof scale);
        return scale;
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 static __m256 load(const std::byte* row,
                                                                  std::size_t c) noexcept {
        const __m128i codes =
            _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + sizeof(float) + c));
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
    }
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 static __m256
    load_first(const std::byte* row, std::size_t c, std::size_t rest) noexcept {
        long long kept = 0;
        std::memcpy(&kept, row + sizeof(float) + c, rest);
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(kept)));
    }
};

/// Sums of each of 8 vectors, s[2 * query + row], in lane 2 * query + row of the two halves of the result:
/// queries 0 and 1 in the lower half.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256
add_lanes_avx2(const __m256 (&s)[8]) noexcept {
    const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(s[0], s[1]), _mm256_hadd_ps(s[2], s[3]));
    const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(s[4], s[5]), _mm256_hadd_ps(s[6], s[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

/// Rows t and t + 1 with sizeof...(Is) / 2 queries.
template <typename Loader, std::size_t... Is>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void
dots_block_avx2(const std::byte* const* rows,
                const float* queries,
                std::size_t dim,
                float* out,
                std::index_sequence<Is...>) noexcept {
    const __m256 zero = _mm256_setzero_ps();
    __m256 sums[8] = {zero, zero, zero, zero, zero, zero, zero, zero};
    const std::byte* const r0 = rows[0];
    const std::byte* const r1 = rows[1];
    std::size_t c = 0;
    for (; c + 8 <= dim; c += 8) {
        const __m256 k[2] = {Loader::load(r0, c), Loader::load(r1, c)};
        ((sums[Is] =
              _mm256_fmadd_ps(k[Is % 2], _mm256_loadu_ps(queries + Is / 2 * dim + c), sums[Is])),
         ...);
    }
    if (c < dim) {
        const std::size_t rest = dim - c;
        const __m256i lanes = simd::detail::first_lanes_avx2(rest);
        const __m256 k[2] = {Loader::load_first(r0, c, rest), Loader::load_first(r1, c, rest)};
        ((sums[Is] = _mm256_fmadd_ps(
              k[Is % 2], _mm256_maskload_ps(queries + Is / 2 * dim + c, lanes), sums[Is])),
         ...);
    }
    float logits[8];
    _mm256_storeu_ps(logits, add_lanes_avx2(sums));
    float gains[2] = {1.0F, 1.0F};
    if constexpr (Loader::has_gain) {
        gains[0] = Loader::gain(r0);
        gains[1] = Loader::gain(r1);
    }
    ((out[Is / 2 * attend_tile + Is % 2] = gains[Is % 2] * logits[Is]), ...);
}

template <typename Loader, std::size_t Queries>
KVCRUSH_TARGET_AVX2 inline void
dots_tile_avx2(const tile_rows& rows, const float* queries, std::size_t dim, float* out) noexcept {
    for (std::size_t t = 0; t < rows.count; t += 2) {
        dots_block_avx2<Loader>(
            rows.group + t, queries, dim, out + t, std::make_index_sequence<2 * Queries>());
    }
}

/// out[q * attend_tile + t] = query q . row t
template <typename Loader>
KVCRUSH_TARGET_AVX2 void dots_avx2(const tile_rows& rows,
                                   const float* queries,
                                   std::size_t num_queries,
                                   std::size_t dim,
                                   float* out) noexcept {
    for (std::size_t q = 0; q < num_queries; q += 4) {
        const float* const from = queries + q * dim;
        float* const to = out + q * attend_tile;
        switch (num_queries - q) {
        case 1: dots_tile_avx2<Loader, 1>(rows, from, dim, to); break;
        case 2: dots_tile_avx2<Loader, 2>(rows, from, dim, to); break;
        case 3: dots_tile_avx2<Loader, 3>(rows, from, dim, to); break;
        default: dots_tile_avx2<Loader, 4>(rows, from, dim, to); break;
        }
    }
}

/// Channels c ... c + 15, sizeof...(Is) / 2 queries.
template <typename Loader, std::size_t... Is>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void
accumulate_block_avx2(const tile_rows& rows,
                      const float* weights,
                      std::size_t c,
                      std::size_t dim,
                      float* out,
                      std::index_sequence<Is...>) noexcept {
    __m256 sums[sizeof...(Is)];
    ((sums[Is] = _mm256_loadu_ps(out + Is / 2 * dim + c + Is % 2 * 8)), ...);
    for (std::size_t t = 0; t < rows.count; ++t) {
        const __m256 v[2] = {Loader::load(rows.group[t], c), Loader::load(rows.group[t], c + 8)};
        ((sums[Is] = _mm256_fmadd_ps(
              v[Is % 2], _mm256_set1_ps(weights[Is / 2 * attend_tile + t]), sums[Is])),
         ...);
    }
    (_mm256_storeu_ps(out + Is / 2 * dim + c + Is % 2 * 8, sums[Is]), ...);
}

/// At most 8 channels, those from c on, sizeof...(Is) queries.
template <typename Loader, std::size_t... Is>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void
accumulate_rest_avx2(const tile_rows& rows,
                     const float* weights,
                     std::size_t c,
                     std::size_t dim,
                     float* out,
                     std::index_sequence<Is...>) noexcept {
    const std::size_t rest = dim - c < 8 ? dim - c : 8;
    const __m256i lanes = simd::detail::first_lanes_avx2(rest);
    __m256 sums[sizeof...(Is)];
    ((sums[Is] = _mm256_maskload_ps(out + Is * dim + c, lanes)), ...);
    for (std::size_t t = 0; t < rows.count; ++t) {
        const __m256 v =
            rest == 8 ? Loader::load(rows.group[t], c) : Loader::load_first(rows.group[t], c, rest);
        ((sums[Is] = _mm256_fmadd_ps(v, _mm256_set1_ps(weights[Is * attend_tile + t]), sums[Is])),
         ...);
    }
    (_mm256_maskstore_ps(out + Is * dim + c, lanes, sums[Is]), ...);
}

template <typename Loader, std::size_t Queries>
KVCRUSH_TARGET_AVX2 inline void accumulate_tile_avx2(const tile_rows& rows,
                                                     const float* weights,
                                                     std::size_t dim,
                                                     float* out) noexcept {
    float scaled[4 * attend_tile];
    if constexpr (Loader::has_gain) {
        for (std::size_t t = 0; t < rows.count; ++t) {
            const float gain = Loader::gain(rows.group[t]);
            for (std::size_t q = 0; q < Queries; ++q) {
                scaled[q * attend_tile + t] = gain * weights[q * attend_tile + t];
            }
        }
        weights = scaled;
    }
    std::size_t c = 0;
    for (; c + 16 <= dim; c += 16) {
        accumulate_block_avx2<Loader>(
            rows, weights, c, dim, out, std::make_index_sequence<2 * Queries>());
    }
    for (; c < dim; c += 8) {
        accumulate_rest_avx2<Loader>(
            rows, weights, c, dim, out, std::make_index_sequence<Queries>());
    }
}

/// sums[q * dim + c] += sum over t of weights[q * attend_tile + t] * row t
template <typename Loader>
KVCRUSH_TARGET_AVX2 void accumulate_avx2(const tile_rows& rows,
                                         const float* weights,
                                         std::size_t num_queries,
                                         std::size_t dim,
                                         float* sums) noexcept {
    for (std::size_t q = 0; q < num_queries; q += 4) {
        const float* const from = weights + q * attend_tile;
        float* const to = sums + q * dim;
        switch (num_queries - q) {
        case 1: accumulate_tile_avx2<Loader, 1>(rows, from, dim, to); break;
        case 2: accumulate_tile_avx2<Loader, 2>(rows, from, dim, to); break;
        case 3: accumulate_tile_avx2<Loader, 3>(rows, from, dim, to); break;
        default: accumulate_tile_avx2<Loader, 4>(rows, from, dim, to); break;
        }
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
#endif
