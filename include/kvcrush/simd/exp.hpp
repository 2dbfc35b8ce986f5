// SPDX-License-Identifier: Apache-2.0
/// @file
/// e^x for the arguments of a softmax, which are at most 0.
///
/// The argument is split into n ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two parts, the first of 9
/// bits, so that its multiples are exact), e^r is a polynomial of degree 6 (relative error 3.1e-9,
/// Remez exchange), and n is added to the exponent bits. AVX2 and AVX-512 do the same operations in
/// the same order and agree bit for bit. Error: below 0.9 ulp, 2^-23 relative (measured on every
/// seventh float); the scalar rung has that of std::exp. Results below the smallest normal float
/// (arguments below -87.3365) are 0. Such arguments, -infinity among them, raise no floating-point exceptions; within
/// kernels those between -infinity and -2e38 overflow.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cmath>
#include <cstddef>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// Smallest argument whose result is a normal float: -126 ln 2, rounded up.
inline constexpr float exp_lowest = -87.336540F;
/// Largest argument of the array form: leaves room to add such results.
inline constexpr float exp_highest = 88.0F;
/// What the array form takes smaller arguments for.
inline constexpr float exp_least = -1e38F;

/// e^x, 0 for NaN and below exp_lowest.
inline float exp_scalar(float x) noexcept { return x >= exp_lowest ? std::exp(x) : 0.0F; }

/// Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
inline constexpr float exp_rounder = 0x1.8p23F;
inline constexpr float exp_log2e = 0x1.715476p0F;
inline constexpr float exp_ln2_high = 0x1.63p-1F;
inline constexpr float exp_ln2_low = -0x1.bd0106p-13F;
inline constexpr float exp_c2 = 0x1.fffffcp-2F;
inline constexpr float exp_c3 = 0x1.555492p-3F;
inline constexpr float exp_c4 = 0x1.5558f2p-5F;
inline constexpr float exp_c5 = 0x1.123a20p-7F;
inline constexpr float exp_c6 = 0x1.6a23d0p-10F;

#if KVCRUSH_X86_DISPATCH

/// e^x for x <= exp_highest; 0 for NaN and below exp_lowest.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256 exp_avx2(__m256 x) noexcept {
    const __m256 in_range = _mm256_cmp_ps(x, _mm256_set1_ps(exp_lowest), _CMP_GE_OQ);
    const __m256 rounder = _mm256_set1_ps(exp_rounder);
    const __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(exp_log2e), rounder);
    // The polynomial is that of 0 for what counts for nothing, as it would overflow.
    const __m256 n = _mm256_and_ps(_mm256_sub_ps(shifted, rounder), in_range);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(exp_ln2_high), _mm256_and_ps(x, in_range));
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(exp_ln2_low), r);
    __m256 p = _mm256_set1_ps(exp_c6);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(exp_c5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(exp_c4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(exp_c3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(exp_c2));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0F));
    const __m256i scaled = _mm256_add_epi32(_mm256_castps_si256(p),
                                            _mm256_slli_epi32(_mm256_castps_si256(shifted), 23));
    return _mm256_and_ps(_mm256_castsi256_ps(scaled), in_range);
}

/// e^x for x <= exp_highest; 0 for NaN and below exp_lowest.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512 exp_avx512(__m512 x) noexcept {
    const __mmask16 in_range = _mm512_cmp_ps_mask(x, _mm512_set1_ps(exp_lowest), _CMP_GE_OQ);
    const __m512 rounder = _mm512_set1_ps(exp_rounder);
    const __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(exp_log2e), rounder);
    const __m512 n = _mm512_sub_ps(shifted, rounder);
    // The polynomial is that of 0 for what counts for nothing, as it would overflow.
    __m512 r = _mm512_maskz_fnmadd_ps(in_range, n, _mm512_set1_ps(exp_ln2_high), x);
    r = _mm512_maskz_fnmadd_ps(in_range, n, _mm512_set1_ps(exp_ln2_low), r);
    __m512 p = _mm512_set1_ps(exp_c6);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(exp_c5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(exp_c4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(exp_c3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(exp_c2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0F));
    // The masked shift avoids a warning in GCC 12's own header (gcc.gnu.org/PR105593).
    const __m512i exponent = _mm512_maskz_slli_epi32(in_range, _mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(in_range, _mm512_castps_si512(p), exponent));
}

#endif // KVCRUSH_X86_DISPATCH

struct exp_args {
    const float* in;
    float* out;
    std::size_t size;
};

inline void exp_many_scalar(const exp_args& args) noexcept {
    for (std::size_t i = 0; i < args.size; ++i) {
        args.out[i] = exp_scalar(args.in[i] > exp_highest ? exp_highest : args.in[i]);
    }
}

#if KVCRUSH_X86_DISPATCH

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256 exp_of_any_avx2(__m256 x) noexcept {
    // min and max return their second operand where one is NaN, and exp turns that into 0.
    x = _mm256_min_ps(_mm256_set1_ps(exp_highest), x);
    return exp_avx2(_mm256_max_ps(_mm256_set1_ps(exp_least), x));
}

KVCRUSH_TARGET_AVX2 inline void exp_many_avx2(const exp_args& args) noexcept {
    std::size_t i = 0;
    for (; i + 8 <= args.size; i += 8) {
        _mm256_storeu_ps(args.out + i, exp_of_any_avx2(_mm256_loadu_ps(args.in + i)));
    }
    if (i < args.size) {
        const __m256i lanes = first_lanes_avx2(args.size - i);
        const __m256 x = _mm256_maskload_ps(args.in + i, lanes);
        _mm256_maskstore_ps(args.out + i, lanes, exp_of_any_avx2(x));
    }
}

KVCRUSH_TARGET_AVX512 inline void exp_many_avx512(const exp_args& args) noexcept {
    const __m512 highest = _mm512_set1_ps(exp_highest);
    const __m512 least = _mm512_set1_ps(exp_least);
    for (std::size_t i = 0; i < args.size; i += 16) {
        const __mmask16 lanes = first_lanes_avx512(args.size - i);
        __m512 x = _mm512_maskz_loadu_ps(lanes, args.in + i);
        x = _mm512_maskz_max_ps(lanes, least, _mm512_maskz_min_ps(lanes, highest, x));
        _mm512_mask_storeu_ps(args.out + i, lanes, exp_avx512(x));
    }
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

/// e^x of each value. Arguments above 88 count as 88, NaN gives 0; no result is infinite or NaN.
/// @param[out] out  [in.size()]; may be the same memory as `in`
inline void
exp_many(std::span<const float> in, std::span<float> out, isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(out.size() == in.size());
    const detail::exp_args args{in.data(), out.data(), in.size()};
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::exp_many_avx512(args);
    case isa::avx2: return detail::exp_many_avx2(args);
#endif
    default: return detail::exp_many_scalar(args);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
