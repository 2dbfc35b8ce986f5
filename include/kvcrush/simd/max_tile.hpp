// SPDX-License-Identifier: Apache-2.0
/// @file
/// Column-wise maxima of scaled rows: one product and one comparison per value, the same on every rung.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/logits.hpp>

#include <cstddef>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

struct max_tile_args {
    const float* tile;
    std::size_t num_rows;
    const float* factors;
    float* largest;
};

inline void max_tile_scalar(const max_tile_args& args) noexcept {
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        const float* const row = args.tile + r * key_tile;
        for (std::size_t t = 0; t < key_tile; ++t) {
            const float value = args.factors[r] * row[t];
            args.largest[t] = value > args.largest[t] ? value : args.largest[t];
        }
    }
}

#if KVCRUSH_X86_DISPATCH

KVCRUSH_TARGET_AVX2 inline void max_tile_avx2(const max_tile_args& args) noexcept {
    for (std::size_t t = 0; t < key_tile; t += 32) {
        float* const out = args.largest + t;
        __m256 a = _mm256_loadu_ps(out);
        __m256 b = _mm256_loadu_ps(out + 8);
        __m256 c = _mm256_loadu_ps(out + 16);
        __m256 d = _mm256_loadu_ps(out + 24);
        for (std::size_t r = 0; r < args.num_rows; ++r) {
            const __m256 factor = _mm256_set1_ps(args.factors[r]);
            const float* const row = args.tile + r * key_tile + t;
            // max returns its second operand where one is NaN: the maximum so far never is.
            a = _mm256_max_ps(_mm256_mul_ps(factor, _mm256_loadu_ps(row)), a);
            b = _mm256_max_ps(_mm256_mul_ps(factor, _mm256_loadu_ps(row + 8)), b);
            c = _mm256_max_ps(_mm256_mul_ps(factor, _mm256_loadu_ps(row + 16)), c);
            d = _mm256_max_ps(_mm256_mul_ps(factor, _mm256_loadu_ps(row + 24)), d);
        }
        _mm256_storeu_ps(out, a);
        _mm256_storeu_ps(out + 8, b);
        _mm256_storeu_ps(out + 16, c);
        _mm256_storeu_ps(out + 24, d);
    }
}

KVCRUSH_TARGET_AVX512 inline void max_tile_avx512(const max_tile_args& args) noexcept {
    constexpr __mmask16 all = 0xFFFF;
    __m512 a = _mm512_loadu_ps(args.largest);
    __m512 b = _mm512_loadu_ps(args.largest + 16);
    __m512 c = _mm512_loadu_ps(args.largest + 32);
    __m512 d = _mm512_loadu_ps(args.largest + 48);
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        const __m512 factor = _mm512_set1_ps(args.factors[r]);
        const float* const row = args.tile + r * key_tile;
        a = _mm512_maskz_max_ps(all, _mm512_mul_ps(factor, _mm512_loadu_ps(row)), a);
        b = _mm512_maskz_max_ps(all, _mm512_mul_ps(factor, _mm512_loadu_ps(row + 16)), b);
        c = _mm512_maskz_max_ps(all, _mm512_mul_ps(factor, _mm512_loadu_ps(row + 32)), c);
        d = _mm512_maskz_max_ps(all, _mm512_mul_ps(factor, _mm512_loadu_ps(row + 48)), d);
    }
    _mm512_storeu_ps(args.largest, a);
    _mm512_storeu_ps(args.largest + 16, b);
    _mm512_storeu_ps(args.largest + 32, c);
    _mm512_storeu_ps(args.largest + 48, d);
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

/// Raises maxima to the rows of a tile, each times its factor: largest[t] = max(largest[t], factors[r] * tile[r, t]).
/// Products that are NaN change nothing.
/// @param[in]     tile     [factors.size(), key_tile]
/// @param[in,out] largest  [key_tile], no NaN among them
inline void max_tile(const float* tile,
                     std::span<const float> factors,
                     std::span<float, key_tile> largest,
                     isa at_most = best()) noexcept {
    const detail::max_tile_args args{tile, factors.size(), factors.data(), largest.data()};
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::max_tile_avx512(args);
    case isa::avx2: return detail::max_tile_avx2(args);
#endif
    default: return detail::max_tile_scalar(args);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
