// SPDX-License-Identifier: Apache-2.0
/// @file
/// The kernels that suit a codec and this machine.
///
/// Every codec gets a working table from its decode(). Codecs whose rows a vector register can take as they lie bring
/// kernels of their own (attend/detail/).
#pragma once

#include <kvcrush/attend/detail/decoded_kernels.hpp>
#include <kvcrush/attend/detail/fused_kernels.hpp>
#include <kvcrush/attend/detail/integer_kernels.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/codec/codec.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstdint>

namespace kvcrush {
inline namespace v0 {

/// How attention computes with encoded rows.
enum class arithmetic : std::uint8_t {
    /// In fp32, as if rows were decoded first: 1e-5 of the sum of absolute terms.
    exact,
    /// In integers, for int8_row, q8_0, q4_0, codebook_row (rows of multiples of 64 channels) and rotations of them, on
    /// CPUs with AVX512_VNNI and AVX512_VBMI; elsewhere exact.
    /// Beside codebook_row queries, centroids and weights have 8 bits, see attend/detail/codebook_*_avx512.hpp.
    /// Otherwise queries and weights have 16 bits beside codes of 8, 12 beside codes of 4, relative to the largest
    /// channel of a query and the largest weight of a tile: far less than what encoding the rows has lost, see
    /// attend/detail/integer_kernels_avx512.hpp.
    integer
};

/// The table of a codec.
/// @param codec  referred to by the table; must outlive it
template <Codec C>
[[nodiscard]] row_kernels kernels_of(const C& codec, simd::isa at_most = simd::best()) noexcept {
    row_kernels table{.codec = &codec,
                      .group_size = codec.group_size(),
                      .rung = simd::usable(at_most),
                      .prepared_size = detail::floats_as_they_are,
                      .prepare = detail::prepare_rotated<C>,
                      .dots = detail::dots_of_decoded<C>,
                      .accumulate = detail::accumulate_decoded<C>,
                      .finish = detail::finish_rotated<C>};
    detail::take_fused_kernels<C>(table);
    return table;
}
template <Codec C>
row_kernels kernels_of(const C&& codec, simd::isa = simd::best()) = delete;

template <Codec C>
[[nodiscard]] row_kernels
kernels_of(const C& codec, arithmetic how, simd::isa at_most = simd::best()) noexcept {
    row_kernels table = kernels_of(codec, at_most);
    if (how == arithmetic::integer) {
        detail::take_integer_kernels<C>(table);
    }
    return table;
}
template <Codec C>
row_kernels kernels_of(const C&& codec, arithmetic, simd::isa = simd::best()) = delete;

} // namespace v0
} // namespace kvcrush
