// SPDX-License-Identifier: Apache-2.0
/// @file
/// The operations of simd/detail/rungs/scalar.hpp on AVX2.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#    define KVCRUSH_OP [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace avx2_rung {

inline constexpr std::size_t width = 32;
inline constexpr std::size_t num_sums = 8;
inline constexpr bool unsigned_first = false;

using bytes = __m256i;
using ints = __m256i;
using floats = __m256;
using quad = __m256i;
struct byte_table {
    __m256i low;
    __m256i high; ///< entries 16 to 31
};

KVCRUSH_OP bytes load_bytes(const std::byte* from) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
template <unsigned Shift, unsigned Bits>
KVCRUSH_OP bytes field(bytes of) noexcept {
    if constexpr (Bits == 8) {
        return of;
    } else {
        return _mm256_and_si256(_mm256_srli_epi16(of, Shift),
                                _mm256_set1_epi8(static_cast<char>((1U << Bits) - 1U)));
    }
}
template <unsigned From, unsigned At>
KVCRUSH_OP bytes with_bit(bytes low, bytes high) noexcept {
    if constexpr (From > At) {
        high = _mm256_srli_epi16(high, From - At);
    } else if constexpr (From < At) {
        high = _mm256_slli_epi16(high, At - From);
    }
    return _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(1 << At)));
}
template <unsigned Bits>
KVCRUSH_OP byte_table load_table(const std::uint8_t* entries) noexcept {
    const auto* const from = reinterpret_cast<const __m128i*>(entries);
    return {_mm256_broadcastsi128_si256(_mm_loadu_si128(from)),
            _mm256_broadcastsi128_si256(_mm_loadu_si128(from + 1))};
}
template <unsigned Bits>
KVCRUSH_OP bytes look_up(byte_table table, bytes codes) noexcept {
    if constexpr (Bits == 8) {
        return codes;
    } else if constexpr (Bits <= 4) {
        return _mm256_shuffle_epi8(table.low, codes);
    } else { // shuffles look at four bits, the choice between two of them at the topmost one
        return _mm256_blendv_epi8(_mm256_shuffle_epi8(table.low, codes),
                                  _mm256_shuffle_epi8(table.high, codes),
                                  _mm256_slli_epi16(codes, 3));
    }
}
KVCRUSH_OP bytes as_first(bytes of) noexcept { return of; }

KVCRUSH_OP quad load_quad(const void* from) noexcept {
    int four = 0;
    std::memcpy(&four, from, 4);
    return _mm256_set1_epi32(four);
}
KVCRUSH_OP ints all_ints(std::int32_t value) noexcept { return _mm256_set1_epi32(value); }
/// Sums of two products fit 16 bits, as no factor is -128.
KVCRUSH_OP ints dot_signed(ints sum, bytes a, quad b) noexcept {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(b), _mm256_sign_epi8(a, b));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
KVCRUSH_OP ints dot_weights(ints sum, bytes a, quad b) noexcept {
    const __m256i pairs = _mm256_maddubs_epi16(b, a);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

KVCRUSH_OP floats to_floats(ints of) noexcept { return _mm256_cvtepi32_ps(of); }
KVCRUSH_OP floats all_floats(float value) noexcept { return _mm256_set1_ps(value); }
KVCRUSH_OP floats load_floats(const float* from) noexcept { return _mm256_loadu_ps(from); }
KVCRUSH_OP floats load_first(const float* from, std::size_t count, floats otherwise) noexcept {
    const __m256i lanes = detail::first_lanes_avx2(count);
    return _mm256_blendv_ps(otherwise, _mm256_maskload_ps(from, lanes), _mm256_castsi256_ps(lanes));
}
KVCRUSH_OP floats load_halves(const std::byte* from) noexcept {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
KVCRUSH_OP floats load_bfloats(const std::byte* from) noexcept {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
KVCRUSH_OP floats load_signed(const std::byte* from) noexcept {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}
KVCRUSH_OP void store_floats(float* to, floats of) noexcept { _mm256_storeu_ps(to, of); }
KVCRUSH_OP void store_first(float* to, std::size_t count, floats of) noexcept {
    _mm256_maskstore_ps(to, detail::first_lanes_avx2(count), of);
}
KVCRUSH_OP floats keep_first(std::size_t count, floats of) noexcept {
    return _mm256_and_ps(of, _mm256_castsi256_ps(detail::first_lanes_avx2(count)));
}
KVCRUSH_OP floats keep_from(floats bound, floats x, floats of) noexcept {
    return _mm256_and_ps(_mm256_cmp_ps(x, bound, _CMP_GE_OQ), of);
}
KVCRUSH_OP floats add(floats a, floats b) noexcept { return _mm256_add_ps(a, b); }
KVCRUSH_OP floats subtract(floats a, floats b) noexcept { return _mm256_sub_ps(a, b); }
KVCRUSH_OP floats multiply(floats a, floats b) noexcept { return _mm256_mul_ps(a, b); }
KVCRUSH_OP floats multiply_add(floats a, floats b, floats c) noexcept {
    return _mm256_fmadd_ps(a, b, c);
}
KVCRUSH_OP floats times_power_of_two(floats of, floats low_bits) noexcept {
    return _mm256_castsi256_ps(_mm256_add_epi32(
        _mm256_castps_si256(of), _mm256_slli_epi32(_mm256_castps_si256(low_bits), 23)));
}
KVCRUSH_OP floats smaller(floats a, floats b) noexcept { return _mm256_min_ps(a, b); }
KVCRUSH_OP floats larger(floats a, floats b) noexcept { return _mm256_max_ps(a, b); }
KVCRUSH_OP floats magnitude(floats of) noexcept {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), of);
}
KVCRUSH_OP float largest_lane(floats of) noexcept {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(of), _mm256_extractf128_ps(of, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    half = _mm_max_ps(half, _mm_movehdup_ps(half));
    return _mm_cvtss_f32(half);
}
KVCRUSH_OP bool any_above(floats a, floats b) noexcept {
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0;
}
KVCRUSH_OP void add_lanes(const floats* of, float* out) noexcept {
    const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(of[0], of[1]), _mm256_hadd_ps(of[2], of[3]));
    const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(of[4], of[5]), _mm256_hadd_ps(of[6], of[7]));
    _mm256_storeu_ps(
        out, _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)));
}
KVCRUSH_OP float sum_of_sixteen(const floats* sixteen) noexcept {
    const __m256 eight = _mm256_add_ps(sixteen[0], sixteen[1]);
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
KVCRUSH_OP __m256d low_doubles(floats of) noexcept {
    return _mm256_cvtps_pd(_mm256_castps256_ps128(of));
}
KVCRUSH_OP __m256d high_doubles(floats of) noexcept {
    return _mm256_cvtps_pd(_mm256_extractf128_ps(of, 1));
}
KVCRUSH_OP void add_sixteen(const floats* sixteen, double* sums) noexcept {
    const __m256d added[4] = {low_doubles(sixteen[0]),
                              high_doubles(sixteen[0]),
                              low_doubles(sixteen[1]),
                              high_doubles(sixteen[1])};
    for (std::size_t i = 0; i < 4; ++i) {
        _mm256_storeu_pd(sums + 4 * i, _mm256_add_pd(_mm256_loadu_pd(sums + 4 * i), added[i]));
    }
}
KVCRUSH_OP void add_eight(const floats* sixteen, float factor, double* sums) noexcept {
    const __m256d times = _mm256_set1_pd(double{factor});
    const __m256 eight = _mm256_add_ps(sixteen[0], sixteen[1]);
    _mm256_storeu_pd(sums, _mm256_fmadd_pd(_mm256_loadu_pd(sums), times, low_doubles(eight)));
    _mm256_storeu_pd(sums + 4,
                     _mm256_fmadd_pd(_mm256_loadu_pd(sums + 4), times, high_doubles(eight)));
}
/// The lowest byte of each lane.
KVCRUSH_OP void store_low_bytes(std::int8_t* to, __m256i lanes) noexcept {
    const __m128i halves =
        _mm_packs_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(halves, halves));
}
KVCRUSH_OP void store_nearest(std::int8_t* to, floats of) noexcept {
    const floats bounded =
        _mm256_max_ps(_mm256_min_ps(of, _mm256_set1_ps(127.0F)), _mm256_set1_ps(-127.0F));
    store_low_bytes(to, _mm256_cvtps_epi32(bounded));
}
KVCRUSH_OP void store_truncated(std::int8_t* to, floats of) noexcept {
    store_low_bytes(to, _mm256_cvttps_epi32(_mm256_min_ps(of, _mm256_set1_ps(127.0F))));
}

} // namespace avx2_rung
} // namespace simd
} // namespace v0
} // namespace kvcrush
#    undef KVCRUSH_OP
#endif
