// SPDX-License-Identifier: Apache-2.0
/// @file
/// Kernels for rows of any codec: a tile is decoded into scratch, then worked on as floats.
#pragma once

#include <kvcrush/attend/detail/float_kernels.hpp>
#include <kvcrush/attend/detail/tile_kernels_avx512.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/codec/codec.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/logits.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// The codec whose groups hold rows in the basis that attention works in.
template <Codec C>
[[nodiscard]] const auto& stored_codec_in(const C& codec) noexcept {
    if constexpr (RotatingCodec<C>) {
        return codec.stored();
    } else {
        return codec;
    }
}

template <Codec C>
using stored_codec_of = std::remove_cvref_t<decltype(stored_codec_in(std::declval<const C&>()))>;

/// Rows of a tile as floats [count, dim].
template <Codec C>
void decode_tile(
    const C& codec, const tile_rows& rows, std::size_t dim, float* out, simd::isa rung) noexcept {
    const std::size_t bytes = codec.group_bytes(dim);
    const std::size_t group_size = codec.group_size();
    if (group_size == 1) {
        for (std::size_t t = 0; t < rows.count; ++t) {
            codec.decode({rows.group[t], bytes}, dim, {out + t * dim, dim}, rung);
        }
        return;
    }
    // Runs of rows from one group are copied out of it together.
    float* const group = out + attend_tile * dim;
    const std::byte* decoded = nullptr;
    for (std::size_t t = 0; t < rows.count; ++t) {
        if (rows.group[t] != decoded) {
            decoded = rows.group[t];
            codec.decode({decoded, bytes}, dim, {group, group_size * dim}, rung);
        }
        std::copy_n(group + rows.within[t] * dim, dim, out + t * dim);
    }
}

inline std::size_t floats_as_they_are(std::size_t num_queries, std::size_t dim) noexcept {
    return num_queries * dim;
}

template <Codec C>
void turn_queries(const row_kernels& self,
                  const float* queries,
                  std::size_t num_queries,
                  std::size_t dim,
                  float* turned) noexcept {
    std::copy_n(queries, num_queries * dim, turned);
    if constexpr (RotatingCodec<C>) {
        static_cast<const C*>(self.turning)->rotate({turned, num_queries * dim}, dim, self.rung);
    }
}

template <Codec C>
void turn_back(const row_kernels& self,
               float* sums,
               std::size_t num_queries,
               std::size_t dim) noexcept {
    if constexpr (RotatingCodec<C>) {
        static_cast<const C*>(self.turning)->unrotate({sums, num_queries * dim}, dim, self.rung);
    } else {
        static_cast<void>(self);
        static_cast<void>(sums);
        static_cast<void>(num_queries);
        static_cast<void>(dim);
    }
}

/// Asks memory for what decoding the next tile will read.
inline void prefetch_next(const tile_rows& rows, std::size_t bytes) noexcept {
    if (rows.next == nullptr) {
        return;
    }
    const std::byte* before = nullptr;
    for (std::size_t t = 0; t < rows.next->count; ++t) {
        const std::byte* const group = rows.next->group[t];
        for (std::size_t i = 0; group != before && i < bytes; i += 64) {
#if defined(__GNUC__)
            __builtin_prefetch(group + i, 0, 2);
#endif
        }
        before = group;
    }
}

template <Codec C>
void decode_rows(const row_kernels& self,
                 const tile_rows& rows,
                 std::size_t dim,
                 float* out) noexcept {
    const C& codec = *static_cast<const C*>(self.codec);
    prefetch_next(rows, codec.group_bytes(dim));
    decode_tile(codec, rows, dim, out, self.rung);
}

/// Decodes a tile into scratch and says where its rows lie there.
[[nodiscard]] inline tile_rows decoded_tile(const row_kernels& self,
                                            const tile_rows& rows,
                                            std::size_t dim,
                                            float* scratch) noexcept {
    self.decode(self, rows, dim, scratch);
    tile_rows decoded;
    const stored_rows lying{.data = reinterpret_cast<const std::byte*>(scratch),
                            .stride = dim * sizeof(float)};
    locate_rows(lying, 1, 0, rows.count, decoded);
    return decoded;
}

inline void dots_of_floats(const tile_rows& rows,
                           const float* queries,
                           std::size_t num_queries,
                           std::size_t dim,
                           float* out,
                           simd::isa rung) noexcept {
#if KVCRUSH_X86_DISPATCH
    if (rung == simd::isa::avx512) {
        return dots_avx512<dense_rows_avx512<float>>(rows, queries, num_queries, dim, out);
    }
#endif
    KVCRUSH_ON_NARROW_RUNG(
        detail, rung, float_dots<elements<float>>(rows, queries, num_queries, dim, out))
    for (std::size_t q = 0; q < num_queries; ++q) {
        for (std::size_t t = 0; t < rows.count; ++t) {
            const float* const row = reinterpret_cast<const float*>(rows.group[t]);
            float sum = 0.0F;
            for (std::size_t c = 0; c < dim; ++c) {
                sum += queries[q * dim + c] * row[c];
            }
            out[q * attend_tile + t] = sum;
        }
    }
}

inline void accumulate_floats(const tile_rows& rows,
                              const float* weights,
                              std::size_t num_queries,
                              std::size_t dim,
                              float* sums,
                              simd::isa rung) noexcept {
#if KVCRUSH_X86_DISPATCH
    if (rung == simd::isa::avx512) {
        return accumulate_avx512<dense_rows_avx512<float>>(rows, weights, num_queries, dim, sums);
    }
#endif
    KVCRUSH_ON_NARROW_RUNG(
        detail, rung, float_sums<elements<float>>(rows, weights, num_queries, dim, sums))
    for (std::size_t q = 0; q < num_queries; ++q) {
        for (std::size_t t = 0; t < rows.count; ++t) {
            const float* const row = reinterpret_cast<const float*>(rows.group[t]);
            const float weight = weights[q * attend_tile + t];
            for (std::size_t c = 0; c < dim; ++c) {
                sums[q * dim + c] += weight * row[c];
            }
        }
    }
}

inline void dots_of_decoded(const row_kernels& self,
                            const tile_rows& rows,
                            const float* prepared,
                            std::size_t num_queries,
                            std::size_t dim,
                            float* out,
                            float* scratch) noexcept {
    dots_of_floats(
        decoded_tile(self, rows, dim, scratch), prepared, num_queries, dim, out, self.rung);
}

inline void accumulate_decoded(const row_kernels& self,
                               const tile_rows& rows,
                               const float* weights,
                               std::size_t num_queries,
                               std::size_t dim,
                               float* sums,
                               float* scratch) noexcept {
    accumulate_floats(
        decoded_tile(self, rows, dim, scratch), weights, num_queries, dim, sums, self.rung);
}

/// Floats of scratch that dots_of_packed() needs.
[[nodiscard]] constexpr std::size_t packing_scratch(std::size_t group_size,
                                                    std::size_t dim) noexcept {
    return kernel_scratch(group_size, dim) + simd::key_tile * dim;
}

/// The dots of many queries with keys of any codec: sums run along the tile, none across lanes.
inline void dots_of_packed(const row_kernels& self,
                           const tile_rows& rows,
                           const float* prepared,
                           std::size_t num_queries,
                           std::size_t dim,
                           float* out,
                           float* scratch) noexcept {
    static_assert(simd::key_tile == attend_tile);
    float* const packed = scratch + kernel_scratch(self.group_size, dim);
    self.decode(self, rows, dim, scratch);
    simd::pack_key_tile(scratch, dim, rows.count, dim, packed, self.rung);
    const float* const queries =
        prepared + self.prepared_size(num_queries, dim) - num_queries * dim;
    simd::tile_logits(
        queries, dim, num_queries, packed, dim, 1.0F, out, attend_tile, rows.count, self.rung);
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
