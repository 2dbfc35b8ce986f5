// SPDX-License-Identifier: Apache-2.0
/// @file
/// Weighted sums of values of a codebook in integer arithmetic, on AVX-512: centroids and weights are
/// rounded to 8 bits.
///
/// Centroids: 127 for the largest one. Weights, times the norms of their rows: 255 for the largest of a tile; what
/// rounding drops of one row another one gets, because thresholds differ from row to row, so that sums over many small
/// weights keep their size. With w and c those largest values, errors are at most w / 255 times the sum over the tile of
/// |c|, and c / 254 times the sum of weights.
///
/// Four rows lie side by side in a register; bytes are moved so that the rows of each channel stand side by side, and
/// dpbusd adds those up.
#pragma once

#include <kvcrush/attend/detail/codebook_tables_avx512.hpp>
#include <kvcrush/attend/detail/integer_kernels_avx512.hpp>
#include <kvcrush/attend/detail/rounding_thresholds.hpp>
#include <kvcrush/attend/detail/row_loaders_avx512.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/config.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Where the codes of 64 channels of four rows come to stand: four vectors of 16 channels.
template <std::size_t Bits>
struct codebook_value_layout {
    /// Whole bytes of codes of 2 and 4 bits are moved, four rows of a byte side by side. Dword d of 128 bits number k gets
    /// the byte from which, when the vectors of its codes are interleaved, channels come out in order.
    static constexpr sixty_four_bytes by_byte() noexcept {
        sixty_four_bytes all{};
        for (std::size_t i = 0; i < 64; ++i) {
            const std::size_t k = i / 16;
            const std::size_t d = i % 16 / 4;
            const std::size_t byte = Bits == 4 ? d / 2 * 8 + 2 * k + d % 2 : 4 * d + k;
            all[i] = static_cast<std::uint8_t>(i % 4 * 16 + byte);
        }
        return all;
    }
    alignas(64) static constexpr sixty_four_bytes bytes = by_byte();
};

/// Codes of 3 and 5 bits cross bytes: two bytes of each of four rows make 64 bits, those with the codes of two channels.
template <std::size_t Bits>
struct crossing_value_layout {
    /// Where the 16 bytes begin that hold the codes of vector v, counted from the first code. None behind a row are read.
    static constexpr std::ptrdiff_t offset(std::size_t v) noexcept {
        return Bits == 3 ? (v < 2 ? -2 : 8) : v < 3 ? 10 * static_cast<std::ptrdiff_t>(v) : 24;
    }
    static constexpr sixty_four_bytes pairs_of(std::size_t v) noexcept {
        const auto skip =
            static_cast<std::size_t>(static_cast<std::ptrdiff_t>(2 * Bits * v) - offset(v));
        sixty_four_bytes all{};
        for (std::size_t i = 0; i < 64; ++i) {
            const std::size_t at = skip + i / 8 * 2 * Bits / 8 + i % 2;
            all[i] = static_cast<std::uint8_t>(i % 8 / 2 * 16 + (at < 16 ? at : 15));
        }
        return all;
    }
    /// The first bit of a channel's code in those 64: byte r of each 32 bits is for row r.
    static constexpr sixty_four_bytes all_shifts() noexcept {
        sixty_four_bytes all{};
        for (std::size_t i = 0; i < 64; ++i) {
            all[i] =
                static_cast<std::uint8_t>(i % 4 * 16 + i / 8 * 2 * Bits % 8 + i % 8 / 4 * Bits);
        }
        return all;
    }
    alignas(64) static constexpr std::array<sixty_four_bytes, 4> pairs = {
        pairs_of(0), pairs_of(1), pairs_of(2), pairs_of(3)};
    alignas(64) static constexpr sixty_four_bytes shifts = all_shifts();
};
template <>
struct codebook_value_layout<3> : crossing_value_layout<3> {};
template <>
struct codebook_value_layout<5> : crossing_value_layout<5> {};

/// Each code of vector V of four rows to its centroid.
/// @param bytes  16 of each row, from the offset of V on
template <std::size_t Bits, std::size_t V>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
crossing_values(__m512i bytes, __m512i table) noexcept {
    using layout = codebook_value_layout<Bits>;
    const __m512i pairs = _mm512_maskz_permutexvar_epi8(~0ULL, sixty_four(layout::pairs[V]), bytes);
    return look_up_bytes(
        table, _mm512_maskz_multishift_epi64_epi8(~0ULL, sixty_four(layout::shifts), pairs));
}

/// The first or the next code in each byte, with others above it.
template <unsigned Shift>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i codes_in_bytes(__m512i bytes) noexcept {
    return _mm512_maskz_srli_epi16(~0U, bytes, Shift);
}

/// 64 channels of four rows, the rows of each channel side by side, in the order of the layout.
/// @param offset  of their codes in each row
template <std::size_t Bits>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void codebook_values(
    const std::byte* const* rows, std::size_t offset, __m512i table, __m512i (&out)[4]) noexcept {
    if constexpr (Bits == 3) {
        const __m512i front = four_rows(rows, offset - 2);
        const __m512i back = four_rows(rows, offset + 8);
        out[0] = crossing_values<3, 0>(front, table);
        out[1] = crossing_values<3, 1>(front, table);
        out[2] = crossing_values<3, 2>(back, table);
        out[3] = crossing_values<3, 3>(back, table);
    } else if constexpr (Bits == 5) {
        out[0] = crossing_values<5, 0>(four_rows(rows, offset), table);
        out[1] = crossing_values<5, 1>(four_rows(rows, offset + 10), table);
        out[2] = crossing_values<5, 2>(four_rows(rows, offset + 20), table);
        out[3] = crossing_values<5, 3>(four_rows(rows, offset + 24), table);
    } else {
        const __m512i order = sixty_four(codebook_value_layout<Bits>::bytes);
        const __m512i a = _mm512_maskz_permutexvar_epi8(~0ULL, order, four_rows(rows, offset));
        out[0] = look_up_bytes(table, a);
        out[1] = look_up_bytes(table, codes_in_bytes<Bits>(a));
        if constexpr (Bits == 4) {
            const __m512i b =
                _mm512_maskz_permutexvar_epi8(~0ULL, order, four_rows(rows, offset + 16));
            out[2] = look_up_bytes(table, b);
            out[3] = look_up_bytes(table, codes_in_bytes<Bits>(b));
        } else {
            out[2] = look_up_bytes(table, codes_in_bytes<2 * Bits>(a));
            out[3] = look_up_bytes(table, codes_in_bytes<3 * Bits>(a));
        }
    }
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void interleave(sums_of_bytes& a,
                                                                    sums_of_bytes& b) noexcept {
    const auto x = reinterpret_cast<__m512i>(a);
    const auto y = reinterpret_cast<__m512i>(b);
    a = reinterpret_cast<sums_of_bytes>(_mm512_maskz_unpacklo_epi32(0xFFFF, x, y));
    b = reinterpret_cast<sums_of_bytes>(_mm512_maskz_unpackhi_epi32(0xFFFF, x, y));
}
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
interleave_pairs(sums_of_bytes& a, sums_of_bytes& b) noexcept {
    const auto x = reinterpret_cast<__m512i>(a);
    const auto y = reinterpret_cast<__m512i>(b);
    a = reinterpret_cast<sums_of_bytes>(_mm512_maskz_unpacklo_epi64(0xFF, x, y));
    b = reinterpret_cast<sums_of_bytes>(_mm512_maskz_unpackhi_epi64(0xFF, x, y));
}

/// From the order of the layout to that of channels, four vectors.
template <std::size_t Bits>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
put_in_order(sums_of_bytes* sums) noexcept {
    if constexpr (Bits % 2 == 0) {
        interleave(sums[0], sums[1]);
        interleave(sums[2], sums[3]);
    }
    if constexpr (Bits == 2) {
        interleave_pairs(sums[0], sums[2]);
        interleave_pairs(sums[1], sums[3]);
        std::swap(sums[1], sums[2]);
    }
}

/// Weights times scales as bytes, up to four queries. All are at least 0.
struct codebook_weights {
    alignas(64) std::uint8_t whole[4 * attend_tile];
    float step[4];
};

KVCRUSH_TARGET_AVX512 inline void round_codebook_weights(const float* weights,
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

/// 64 channels from c on. Is is 4 * query + vector.
template <std::size_t Bits, std::size_t... Is>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
codebook_accumulate_block(const tile_rows& rows,
                          const codebook_weights& weights,
                          std::size_t c,
                          std::size_t dim,
                          bool prefetch,
                          float* out,
                          std::index_sequence<Is...>) noexcept {
    const __m512i table = sixty_four(codebook_table<Bits>::with_sign);
    const std::size_t offset = codebook_rows_avx512<Bits>::offset(c);
    const std::size_t last = prefetch ? codebook_rows_avx512<Bits>::offset(c + 64) : 0;
    sums_of_bytes sums[sizeof...(Is)];
    ((sums[Is] = sums_of_bytes{}), ...);
    for (std::size_t t = 0; t < rows.count; t += 4) {
        for (std::size_t i = t; i < t + 4; ++i) {
            prefetch_row(rows, i, offset - 2, last);
        }
        const std::byte* const* const r = rows.group + t;
        __m512i v[4];
        codebook_values<Bits>(r, offset, table, v);
        ((add_products_of_bytes(
             sums[Is], four_weights(weights.whole + Is / 4 * attend_tile + t), v[Is % 4])),
         ...);
    }
    ((Is % 4 == 0 ? put_in_order<Bits>(sums + Is) : void()), ...);
    (_mm512_storeu_ps(out + Is / 4 * dim + c + Is % 4 * 16,
                      _mm512_fmadd_ps(whole_floats(sums[Is]),
                                      _mm512_set1_ps(weights.step[Is / 4]),
                                      _mm512_loadu_ps(out + Is / 4 * dim + c + Is % 4 * 16))),
     ...);
}

template <std::size_t Bits, std::size_t Queries>
KVCRUSH_TARGET_AVX512 inline void codebook_accumulate_tile(const tile_rows& rows,
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
KVCRUSH_TARGET_AVX512 inline void codebook_accumulate(const tile_rows& rows,
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
