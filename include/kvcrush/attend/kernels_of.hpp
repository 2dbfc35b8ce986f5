// SPDX-License-Identifier: Apache-2.0
/// @file
/// The kernels that suit a codec and this machine.
///
/// Every codec gets a working table from its decode(). Codecs whose rows a vector register can take as they lie bring
/// kernels of their own: those of the library in attend/detail/codec_kernels.hpp, others by specialising row_kernels_for.
#pragma once

#include <kvcrush/attend/code_tiles.hpp>
#include <kvcrush/attend/detail/code_tile_kernels.hpp>
#include <kvcrush/attend/detail/codec_kernels.hpp>
#include <kvcrush/attend/detail/decoded_kernels.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/codec/codec.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/simd/isa.hpp>

namespace kvcrush {
inline namespace v0 {

/// The table of a codec.
/// @param codec  referred to by the table; must outlive it
template <Codec C>
[[nodiscard]] row_kernels
kernels_of(const C& codec, arithmetic how, simd::isa at_most = simd::best()) noexcept {
    using stored_codec = detail::stored_codec_of<C>;
    const stored_codec& stored = detail::stored_codec_in(codec);
    row_kernels table{.codec = &stored,
                      .turning = &codec,
                      .group_size = codec.group_size(),
                      .rung = simd::usable(at_most),
                      .turn = detail::turn_queries<C>,
                      .prepared_size = detail::floats_as_they_are,
                      .prepare = detail::turn_queries<C>,
                      .decode = detail::decode_rows<stored_codec>,
                      .dots = detail::dots_of_decoded,
                      .accumulate = detail::accumulate_decoded,
                      .finish = detail::turn_back<C>};
    row_kernels_for<stored_codec>::take(stored, how, table);
    return table;
}
template <Codec C>
row_kernels kernels_of(const C&& codec, arithmetic, simd::isa = simd::best()) = delete;

template <Codec C>
[[nodiscard]] row_kernels kernels_of(const C& codec, simd::isa at_most = simd::best()) noexcept {
    return kernels_of(codec, arithmetic::exact, at_most);
}
template <Codec C>
row_kernels kernels_of(const C&& codec, simd::isa = simd::best()) = delete;

/// The table of a codec whose rows lie in tiles; groups are then tiles. Attention computes in integers, see
/// attend/detail/code_tile_kernels.inl, but for chosen rows and on machines without vectors, where rows are decoded.
/// @param codec  referred to by the table; must outlive it
template <Codec C>
    requires TiledCodec<detail::stored_codec_of<C>>
[[nodiscard]] row_kernels
tile_kernels_of(const C& codec, tile_role role, simd::isa at_most = simd::best()) noexcept {
    row_kernels table = kernels_of(codec, at_most);
    table.group_size = code_tile::num_rows;
    table.role = role;
    table.prepared_size = detail::floats_as_they_are;
    table.prepare = table.turn;
    table.decode = detail::decode_tile_rows<detail::stored_codec_of<C>>;
    table.dots = detail::dots_of_decoded;
    table.accumulate = detail::accumulate_decoded;
    if (table.rung != simd::isa::scalar) {
        detail::take_tile_kernels(detail::stored_codec_in(codec), table);
    }
    return table;
}
template <Codec C>
row_kernels tile_kernels_of(const C&& codec, tile_role, simd::isa = simd::best()) = delete;

} // namespace v0
} // namespace kvcrush

#if KVCRUSH_EXTERN_INSTANCES
#    include <kvcrush/attend/detail/codec_kernel_instances.hpp>
#endif
