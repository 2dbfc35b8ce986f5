// SPDX-License-Identifier: Apache-2.0
/// @file
/// Hamming distances of codes of one unit with AVX-512: vpopcntb/w (BITALG), vpopcntd/q
/// (VPOPCNTDQ), one lane a code, narrowed to the output. No overflow: a distance is at most 64.
///
/// Conversions carry a mask of all lanes: GCC 12 warns of an uninitialised operand inside its own
/// unmasked forms (gcc.gnu.org/PR105593). The instruction is the same.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/hamming_scalar.hpp>

#include <cstddef>
#include <cstdint>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// Codes that one vector step handles when a code is one unit.
template <typename Code, typename Out>
inline constexpr std::size_t lane_codes =
    64 / (sizeof(Code) > sizeof(Out) ? sizeof(Code) : sizeof(Out));

/// Loads `lane_codes` codes, or those in `lanes` of them; u8 codes with u16 output are widened.
template <typename Code, typename Out>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i load_lanes(const Code* codes) noexcept {
    if constexpr (sizeof(Code) < sizeof(Out)) {
        return _mm512_maskz_cvtepu8_epi16(
            0xFFFFFFFF, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
    } else {
        return _mm512_loadu_si512(codes);
    }
}

template <typename Code, typename Out>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
load_lanes(const Code* codes, std::uint64_t lanes) noexcept {
    if constexpr (sizeof(Code) < sizeof(Out)) {
        return _mm512_maskz_cvtepu8_epi16(
            0xFFFFFFFF, _mm256_maskz_loadu_epi8(static_cast<__mmask32>(lanes), codes));
    } else if constexpr (sizeof(Code) == 1) {
        return _mm512_maskz_loadu_epi8(lanes, codes);
    } else if constexpr (sizeof(Code) == 2) {
        return _mm512_maskz_loadu_epi16(static_cast<__mmask32>(lanes), codes);
    } else if constexpr (sizeof(Code) == 4) {
        return _mm512_maskz_loadu_epi32(static_cast<__mmask16>(lanes), codes);
    } else {
        return _mm512_maskz_loadu_epi64(static_cast<__mmask8>(lanes), codes);
    }
}

template <typename Code, typename Out>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i count_lanes(__m512i bits) noexcept {
    constexpr std::size_t lane_bytes = 64 / lane_codes<Code, Out>;
    if constexpr (lane_bytes == 1) {
        return _mm512_popcnt_epi8(bits);
    } else if constexpr (lane_bytes == 2) {
        return _mm512_popcnt_epi16(bits);
    } else if constexpr (lane_bytes == 4) {
        return _mm512_popcnt_epi32(bits);
    } else {
        return _mm512_popcnt_epi64(bits);
    }
}

template <typename Code, typename Out>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i broadcast_lanes(Code query) noexcept {
    constexpr std::size_t lane_bytes = 64 / lane_codes<Code, Out>;
    if constexpr (lane_bytes == 1) {
        return _mm512_set1_epi8(static_cast<char>(query));
    } else if constexpr (lane_bytes == 2) {
        return _mm512_set1_epi16(static_cast<short>(query));
    } else if constexpr (lane_bytes == 4) {
        return _mm512_set1_epi32(static_cast<int>(query));
    } else {
        return _mm512_set1_epi64(static_cast<long long>(query));
    }
}

/// Narrows one vector of distances to the output type and stores it.
template <typename Code, typename Out>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void store_lanes(__m512i counts,
                                                                     Out* out) noexcept {
    auto* const half = reinterpret_cast<__m256i*>(out);
    auto* const quarter = reinterpret_cast<__m128i*>(out);
    if constexpr (lane_codes<Code, Out> * sizeof(Out) == 64) {
        _mm512_storeu_si512(out, counts);
    } else if constexpr (sizeof(Code) == 2) {
        _mm256_storeu_si256(half, _mm512_maskz_cvtusepi16_epi8(0xFFFFFFFF, counts));
    } else if constexpr (sizeof(Code) == 4 && sizeof(Out) == 2) {
        _mm256_storeu_si256(half, _mm512_maskz_cvtusepi32_epi16(0xFFFF, counts));
    } else if constexpr (sizeof(Code) == 4) {
        _mm_storeu_si128(quarter, _mm512_maskz_cvtusepi32_epi8(0xFFFF, counts));
    } else if constexpr (sizeof(Out) == 2) {
        _mm_storeu_si128(quarter, _mm512_maskz_cvtusepi64_epi16(0xFF, counts));
    } else {
        _mm_storel_epi64(quarter, _mm512_maskz_cvtusepi64_epi8(0xFF, counts));
    }
}

template <typename Code, typename Out>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
store_lanes(__m512i counts, Out* out, std::uint64_t lanes) noexcept {
    if constexpr (sizeof(Code) == 1 && sizeof(Out) == 1) {
        _mm512_mask_storeu_epi8(out, lanes, counts);
    } else if constexpr (lane_codes<Code, Out> * sizeof(Out) == 64) {
        _mm512_mask_storeu_epi16(out, static_cast<__mmask32>(lanes), counts);
    } else if constexpr (sizeof(Code) == 2) {
        _mm256_mask_storeu_epi8(
            out, static_cast<__mmask32>(lanes), _mm512_maskz_cvtusepi16_epi8(0xFFFFFFFF, counts));
    } else if constexpr (sizeof(Code) == 4 && sizeof(Out) == 2) {
        _mm256_mask_storeu_epi16(
            out, static_cast<__mmask16>(lanes), _mm512_maskz_cvtusepi32_epi16(0xFFFF, counts));
    } else if constexpr (sizeof(Code) == 4) {
        _mm_mask_storeu_epi8(
            out, static_cast<__mmask16>(lanes), _mm512_maskz_cvtusepi32_epi8(0xFFFF, counts));
    } else if constexpr (sizeof(Out) == 2) {
        _mm_mask_storeu_epi16(
            out, static_cast<__mmask8>(lanes), _mm512_maskz_cvtusepi64_epi16(0xFF, counts));
    } else {
        _mm_mask_storeu_epi8(
            out, static_cast<__mmask16>(lanes), _mm512_maskz_cvtusepi64_epi8(0xFF, counts));
    }
}

/// Codes of one unit.
template <typename Code, typename Out>
KVCRUSH_TARGET_AVX512 inline void
hamming_units_avx512(const hamming_args<Code, Out>& args) noexcept {
    constexpr std::size_t step = lane_codes<Code, Out>;
    const __m512i query = broadcast_lanes<Code, Out>(*args.query);
    const Code* const codes = args.codes;
    Out* const out = args.out;
    std::size_t i = 0;
    for (; i + 4 * step <= args.num_codes; i += 4 * step) {
        const __m512i a = _mm512_xor_si512(load_lanes<Code, Out>(codes + i), query);
        const __m512i b = _mm512_xor_si512(load_lanes<Code, Out>(codes + i + step), query);
        const __m512i c = _mm512_xor_si512(load_lanes<Code, Out>(codes + i + 2 * step), query);
        const __m512i d = _mm512_xor_si512(load_lanes<Code, Out>(codes + i + 3 * step), query);
        store_lanes<Code, Out>(count_lanes<Code, Out>(a), out + i);
        store_lanes<Code, Out>(count_lanes<Code, Out>(b), out + i + step);
        store_lanes<Code, Out>(count_lanes<Code, Out>(c), out + i + 2 * step);
        store_lanes<Code, Out>(count_lanes<Code, Out>(d), out + i + 3 * step);
    }
    while (i < args.num_codes) {
        const std::size_t left = args.num_codes - i;
        const std::uint64_t lanes =
            left >= step ? ~std::uint64_t{0} >> (64 - step) : ~(~std::uint64_t{0} << left);
        const __m512i bits = _mm512_xor_si512(load_lanes<Code, Out>(codes + i, lanes), query);
        store_lanes<Code, Out>(count_lanes<Code, Out>(bits), out + i, lanes);
        i += left < step ? left : step;
    }
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
#endif
