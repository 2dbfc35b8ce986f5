// SPDX-License-Identifier: Apache-2.0
/// @file
/// Centroids of a codebook as bytes, and what a row of one is multiplied with, for attention in integer arithmetic on
/// AVX-512.
///
/// 127 stands for the largest centroid. vpermb reads the low 6 bits of an index, and tables repeat: what stands above a
/// code in its byte does not matter.
#pragma once

#include <kvcrush/attend/detail/integer_kernels_avx512.hpp>
#include <kvcrush/attend/detail/row_loaders_avx512.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/codec/lloyd_max.hpp>
#include <kvcrush/config.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Rows are taken 64 channels at a time.
[[nodiscard]] constexpr bool suits_integer_codebook(std::size_t dim) noexcept {
    return dim % 64 == 0 && dim <= integer_max_dim;
}

using sixty_four_bytes = std::array<std::uint8_t, 64>;

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
sixty_four(const sixty_four_bytes& from) noexcept {
    return _mm512_load_si512(from.data());
}

template <std::size_t Bits>
struct codebook_table {
    static constexpr std::size_t size = std::size_t{1} << Bits;
    static constexpr float largest = lloyd_max<Bits>::centroids[size - 1];

    /// round(127 centroid / largest), plus `shift`, of each index.
    static constexpr sixty_four_bytes bytes(int shift) noexcept {
        sixty_four_bytes all{};
        for (std::size_t k = 0; k < 64; ++k) {
            const float x = 127.0F * lloyd_max<Bits>::centroids[k % size] / largest;
            const int whole = static_cast<int>(x < 0.0F ? x - 0.5F : x + 0.5F);
            all[k] = static_cast<std::uint8_t>(whole + shift);
        }
        return all;
    }
    alignas(64) static constexpr sixty_four_bytes with_sign = bytes(0);
    alignas(64) static constexpr sixty_four_bytes without_sign = bytes(128);
};

/// What a row's integers are multiplied with, [attend_tile], zeros behind the rows.
template <std::size_t Bits>
KVCRUSH_TARGET_AVX512 inline void
codebook_scales(const tile_rows& rows, std::size_t dim, float* out) noexcept {
    constexpr float step = codebook_table<Bits>::largest / 127.0F;
    first_halves_avx512(rows, step / std::sqrt(static_cast<float>(dim)), out);
}

/// Codes, each in a byte of its own, to centroids.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i look_up_bytes(__m512i table,
                                                                          __m512i codes) noexcept {
    return _mm512_maskz_permutexvar_epi8(~0ULL, codes, table);
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
#endif
