// SPDX-License-Identifier: Apache-2.0
/// @file
/// The operations of simd/detail/rungs/scalar.hpp on AVX-512.
///
/// GCC 12 warns of the unmasked forms of some intrinsics in its own header (gcc.gnu.org/PR105593): those are spelt with
/// a full mask, for which the same instruction comes out.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#    define KVCRUSH_OP [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace avx512_rung {

inline constexpr std::size_t width = 64;
inline constexpr std::size_t num_sums = 16;
inline constexpr bool unsigned_first = true;

using bytes = __m512i;
using ints = __m512i;
using floats = __m512;
using quad = __m512i;
struct byte_table {
    __m512i entries;
};

KVCRUSH_OP bytes load_bytes(const std::byte* from) noexcept { return _mm512_loadu_si512(from); }
/// Bits from Shift on: vpermb, which looks at six, finds tables that repeat, so others above them do not matter.
template <unsigned Shift, unsigned Bits>
KVCRUSH_OP bytes field(bytes of) noexcept {
    if constexpr (Shift == 0) {
        return of;
    } else {
        return _mm512_maskz_srli_epi16(~0U, of, Shift);
    }
}
template <unsigned From, unsigned At>
KVCRUSH_OP bytes with_bit(bytes low, bytes high) noexcept {
    if constexpr (From > At) {
        high = _mm512_maskz_srli_epi16(~0U, high, From - At);
    } else if constexpr (From < At) {
        high = _mm512_maskz_slli_epi16(~0U, high, At - From);
    }
    // low where the mask is set, high elsewhere
    return _mm512_ternarylogic_epi32(
        _mm512_set1_epi8(static_cast<char>((1U << At) - 1U)), low, high, 0xCA);
}
template <unsigned Bits>
KVCRUSH_OP byte_table load_table(const std::uint8_t* entries) noexcept {
    return {_mm512_loadu_si512(entries)};
}
template <unsigned Bits>
KVCRUSH_OP bytes look_up(byte_table table, bytes codes) noexcept {
    if constexpr (Bits == 8) {
        return codes;
    } else {
        return _mm512_maskz_permutexvar_epi8(~0ULL, codes, table.entries);
    }
}
/// 128 more, without sign.
KVCRUSH_OP bytes as_first(bytes of) noexcept {
    return _mm512_xor_si512(of, _mm512_set1_epi8(static_cast<char>(0x80)));
}

KVCRUSH_OP quad load_quad(const void* from) noexcept {
    int four = 0;
    std::memcpy(&four, from, 4);
    return _mm512_set1_epi32(four);
}
KVCRUSH_OP ints all_ints(std::int32_t value) noexcept { return _mm512_set1_epi32(value); }
KVCRUSH_OP ints dot_signed(ints sum, bytes a, quad b) noexcept {
    return _mm512_dpbusd_epi32(sum, a, b);
}
KVCRUSH_OP ints dot_weights(ints sum, bytes a, quad b) noexcept {
    return _mm512_dpbusd_epi32(sum, b, a);
}

KVCRUSH_OP floats to_floats(ints of) noexcept { return _mm512_maskz_cvtepi32_ps(0xFFFF, of); }
KVCRUSH_OP floats all_floats(float value) noexcept { return _mm512_set1_ps(value); }
KVCRUSH_OP floats load_floats(const float* from) noexcept { return _mm512_loadu_ps(from); }
KVCRUSH_OP floats load_first(const float* from, std::size_t count, floats otherwise) noexcept {
    return _mm512_mask_loadu_ps(otherwise, detail::first_lanes_avx512(count), from);
}
KVCRUSH_OP floats load_halves(const std::byte* from) noexcept {
    return _mm512_maskz_cvtph_ps(0xFFFF,
                                 _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
KVCRUSH_OP floats load_bfloats(const std::byte* from) noexcept {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(
        _mm512_maskz_slli_epi32(0xFFFF, _mm512_maskz_cvtepu16_epi32(0xFFFF, halves), 16));
}
KVCRUSH_OP floats load_signed(const std::byte* from) noexcept {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_maskz_cvtepi8_epi32(0xFFFF, codes));
}
KVCRUSH_OP void store_floats(float* to, floats of) noexcept { _mm512_storeu_ps(to, of); }
KVCRUSH_OP void store_first(float* to, std::size_t count, floats of) noexcept {
    _mm512_mask_storeu_ps(to, detail::first_lanes_avx512(count), of);
}
KVCRUSH_OP floats keep_first(std::size_t count, floats of) noexcept {
    return _mm512_maskz_mov_ps(detail::first_lanes_avx512(count), of);
}
KVCRUSH_OP floats keep_from(floats bound, floats x, floats of) noexcept {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_GE_OQ), of);
}
KVCRUSH_OP floats add(floats a, floats b) noexcept { return _mm512_add_ps(a, b); }
KVCRUSH_OP floats subtract(floats a, floats b) noexcept { return _mm512_sub_ps(a, b); }
KVCRUSH_OP floats multiply(floats a, floats b) noexcept { return _mm512_mul_ps(a, b); }
KVCRUSH_OP floats multiply_add(floats a, floats b, floats c) noexcept {
    return _mm512_fmadd_ps(a, b, c);
}
KVCRUSH_OP floats times_power_of_two(floats of, floats low_bits) noexcept {
    const __m512i exponent = _mm512_maskz_slli_epi32(0xFFFF, _mm512_castps_si512(low_bits), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(of), exponent));
}
KVCRUSH_OP floats smaller(floats a, floats b) noexcept { return _mm512_maskz_min_ps(0xFFFF, a, b); }
KVCRUSH_OP floats larger(floats a, floats b) noexcept { return _mm512_maskz_max_ps(0xFFFF, a, b); }
KVCRUSH_OP floats magnitude(floats of) noexcept { return _mm512_abs_ps(of); }
KVCRUSH_OP float largest_lane(floats of) noexcept { return detail::largest_lane_avx512(of); }
KVCRUSH_OP bool any_above(floats a, floats b) noexcept {
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
}
KVCRUSH_OP void add_lanes(const floats* of, float* out) noexcept {
    for (std::size_t i = 0; i < 8; ++i) {
        out[i] = detail::sum_of_lanes_avx512(of[i]);
    }
}
KVCRUSH_OP float sum_of_sixteen(const floats* sixteen) noexcept {
    return detail::sum_of_lanes_avx512(*sixteen);
}
KVCRUSH_OP __m256 lower_half(floats of) noexcept {
    return _mm512_maskz_extractf32x8_ps(0xFF, of, 0);
}
KVCRUSH_OP __m256 upper_half(floats of) noexcept {
    return _mm512_maskz_extractf32x8_ps(0xFF, of, 1);
}
KVCRUSH_OP void add_sixteen(const floats* sixteen, double* sums) noexcept {
    const __m512d low = _mm512_maskz_cvtps_pd(0xFF, lower_half(*sixteen));
    const __m512d high = _mm512_maskz_cvtps_pd(0xFF, upper_half(*sixteen));
    _mm512_storeu_pd(sums, _mm512_add_pd(_mm512_loadu_pd(sums), low));
    _mm512_storeu_pd(sums + 8, _mm512_add_pd(_mm512_loadu_pd(sums + 8), high));
}
KVCRUSH_OP void add_eight(const floats* sixteen, float factor, double* sums) noexcept {
    const __m256 eight = _mm256_add_ps(lower_half(*sixteen), upper_half(*sixteen));
    _mm512_storeu_pd(sums,
                     _mm512_fmadd_pd(_mm512_loadu_pd(sums),
                                     _mm512_set1_pd(double{factor}),
                                     _mm512_maskz_cvtps_pd(0xFF, eight)));
}
KVCRUSH_OP void store_nearest(std::int8_t* to, floats of) noexcept {
    const floats bounded = _mm512_maskz_max_ps(
        0xFFFF, _mm512_maskz_min_ps(0xFFFF, of, _mm512_set1_ps(127.0F)), _mm512_set1_ps(-127.0F));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm512_maskz_cvtepi32_epi8(0xFFFF, _mm512_maskz_cvtps_epi32(0xFFFF, bounded)));
}
KVCRUSH_OP void store_truncated(std::int8_t* to, floats of) noexcept {
    const floats bounded = _mm512_maskz_min_ps(0xFFFF, of, _mm512_set1_ps(127.0F));
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(to),
        _mm512_maskz_cvtepi32_epi8(0xFFFF, _mm512_maskz_cvttps_epi32(0xFFFF, bounded)));
}

} // namespace avx512_rung
} // namespace simd
} // namespace v0
} // namespace kvcrush
#    undef KVCRUSH_OP
#endif
