// SPDX-License-Identifier: Apache-2.0
/// @file
/// Kernels for tiles of codes on every rung, and the table that attention finds them in.
#pragma once

#include <kvcrush/attend/code_tiles.hpp>
#include <kvcrush/attend/detail/decoded_kernels.hpp>
#include <kvcrush/attend/detail/rounding_thresholds.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/codec/codebook_row.hpp>
#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/lloyd_max.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/detail/rungs/on_rung.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// round(127 centroid / largest) of each index, 128 more where products take them without sign; codes of 8 bits are what
/// they stand for.
template <std::size_t Bits, bool Unsigned>
alignas(64) inline constexpr std::array<std::uint8_t, 64> tile_table = [] {
    std::array<std::uint8_t, 64> all{};
    if constexpr (Bits < 8) {
        constexpr std::size_t size = std::size_t{1} << Bits;
        for (std::size_t k = 0; k < 64; ++k) {
            const float x = 127.0F * lloyd_max<Bits>::centroids[k % size] /
                            lloyd_max<Bits>::centroids[size - 1];
            const int whole = static_cast<int>(x < 0.0F ? x - 0.5F : x + 0.5F);
            all[k] = static_cast<std::uint8_t>(whole + (Unsigned ? 128 : 0));
        }
    }
    return all;
}();

inline constexpr std::size_t tile_query_head = 16;
[[nodiscard]] constexpr std::size_t tile_query_bytes(std::size_t dim) noexcept {
    return tile_query_head + code_tile::num_blocks(dim) * code_tile::block_channels;
}
[[nodiscard]] inline float tile_query_step(const std::byte* query) noexcept {
    float step = 0.0F;
    std::memcpy(&step, query, sizeof step);
    return step;
}
[[nodiscard]] inline std::int32_t tile_query_begin(const std::byte* query) noexcept {
    std::int32_t begin = 0;
    std::memcpy(&begin, query + sizeof(float), sizeof begin);
    return begin;
}

/// Bytes that a row's codec writes before codes of so many bits.
template <std::size_t Bits>
inline constexpr std::size_t tile_head_bytes = Bits == 8 ? sizeof(float) : 2;
/// What the head of a row is multiplied with to become the scale of its integers.
template <std::size_t Bits>
[[nodiscard]] inline float tile_scale_step(std::size_t dim) noexcept {
    if constexpr (Bits == 8) {
        return 1.0F;
    } else {
        return lloyd_max<Bits>::centroids[(std::size_t{1} << Bits) - 1] / 127.0F /
               std::sqrt(static_cast<float>(dim));
    }
}
/// Queries as integers in front, behind them as they were turned.
inline std::size_t prepared_size_for_tiles(std::size_t num_queries, std::size_t dim) noexcept {
    return num_queries * (tile_query_bytes(dim) / sizeof(float) + dim);
}

#define KVCRUSH_ALGORITHM <kvcrush/attend/detail/code_tile_kernels.inl>
#include <kvcrush/simd/detail/rungs/each.inl>

/// On the best rung that the table allows, the scalar one left out, where decoding is quicker.
template <std::size_t Bits>
void take_tile_kernels(row_kernels& table) noexcept {
    KVCRUSH_ON_VECTOR_RUNG(detail, table.rung, take_tile_kernels<Bits>(table))
}

inline void take_tile_kernels(const codebook_row_codec& codec, row_kernels& table) noexcept {
    with_codebook_bits(codec.bits, [&](auto bits) { take_tile_kernels<bits>(table); });
}
inline void take_tile_kernels(const int8_row_codec&, row_kernels& table) noexcept {
    take_tile_kernels<8>(table);
}

/// Rows of tiles as floats [count, dim].
template <TiledCodec C>
void decode_tile_rows(const row_kernels& self,
                      const tile_rows& rows,
                      std::size_t dim,
                      float* out) noexcept {
    const C& codec = *static_cast<const C*>(self.codec);
    const code_tile tile = code_tile_for<C>::of(codec, self.role, dim);
    auto* const row = reinterpret_cast<std::byte*>(out + attend_tile * dim);
    for (std::size_t t = 0; t < rows.count; ++t) {
        tile.get(rows.group[t], rows.within[t], {row, tile.row_bytes()});
        codec.decode({row, tile.row_bytes()}, dim, {out + t * dim, dim}, self.rung);
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
