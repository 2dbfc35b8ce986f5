// SPDX-License-Identifier: Apache-2.0
/// @file
/// What attention does with rows of a codec, as a table of functions: attention itself is compiled once, and the codec
/// is chosen per run of rows, not per row.
///
/// Every codec gets a working table from its decode(). Codecs whose rows a vector register can take as they lie bring
/// kernels of their own (attend/detail/).
#pragma once

#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/codec/codec.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Functions of one codec. `codec` points to the value they were made of, which has to live as long.
/// Query rows are the tokens times query heads that look at one kv head.
struct row_kernels {
    const void* codec = nullptr;
    std::size_t group_size = 1;
    simd::isa rung = simd::isa::scalar;

    /// Floats that prepare() writes.
    std::size_t (*prepared_size)(std::size_t num_queries, std::size_t dim) noexcept = nullptr;
    /// Queries [num_queries, dim], already scaled, into the form that dots() wants: turned into the codec's basis.
    void (*prepare)(const row_kernels& self,
                    const float* queries,
                    std::size_t num_queries,
                    std::size_t dim,
                    float* prepared) noexcept = nullptr;
    /// out[q * attend_tile + t] = query q . row t.  @param scratch [attend_tile * dim], as below
    void (*dots)(const row_kernels& self,
                 const tile_rows& rows,
                 const float* prepared,
                 std::size_t num_queries,
                 std::size_t dim,
                 float* out,
                 float* scratch) noexcept = nullptr;
    /// sums[q * dim + c] += sum over t of weights[q * attend_tile + t] * row t, in the codec's basis.
    void (*accumulate)(const row_kernels& self,
                       const tile_rows& rows,
                       const float* weights,
                       std::size_t num_queries,
                       std::size_t dim,
                       float* sums,
                       float* scratch) noexcept = nullptr;
    /// Turns sums [num_queries, dim] back into the basis of the model.
    void (*finish)(const row_kernels& self,
                   float* sums,
                   std::size_t num_queries,
                   std::size_t dim) noexcept = nullptr;
};

namespace detail {

/// The codec whose groups hold rows in the basis that attention works in.
template <Codec C>
[[nodiscard]] const auto& stored_codec(const C& codec) noexcept {
    if constexpr (RotatingCodec<C>) {
        return codec.stored();
    } else {
        return codec;
    }
}

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
void prepare_rotated(const row_kernels& self,
                     const float* queries,
                     std::size_t num_queries,
                     std::size_t dim,
                     float* prepared) noexcept {
    std::copy_n(queries, num_queries * dim, prepared);
    if constexpr (RotatingCodec<C>) {
        static_cast<const C*>(self.codec)->rotate({prepared, num_queries * dim}, dim, self.rung);
    }
}

template <Codec C>
void finish_rotated(const row_kernels& self,
                    float* sums,
                    std::size_t num_queries,
                    std::size_t dim) noexcept {
    if constexpr (RotatingCodec<C>) {
        static_cast<const C*>(self.codec)->unrotate({sums, num_queries * dim}, dim, self.rung);
    } else {
        static_cast<void>(self);
        static_cast<void>(sums);
        static_cast<void>(num_queries);
        static_cast<void>(dim);
    }
}

template <Codec C>
void dots_of_decoded(const row_kernels& self,
                     const tile_rows& rows,
                     const float* prepared,
                     std::size_t num_queries,
                     std::size_t dim,
                     float* out,
                     float* scratch) noexcept {
    decode_tile(stored_codec(*static_cast<const C*>(self.codec)), rows, dim, scratch, self.rung);
    for (std::size_t q = 0; q < num_queries; ++q) {
        for (std::size_t t = 0; t < rows.count; ++t) {
            float sum = 0.0F;
            for (std::size_t c = 0; c < dim; ++c) {
                sum += prepared[q * dim + c] * scratch[t * dim + c];
            }
            out[q * attend_tile + t] = sum;
        }
    }
}

template <Codec C>
void accumulate_decoded(const row_kernels& self,
                        const tile_rows& rows,
                        const float* weights,
                        std::size_t num_queries,
                        std::size_t dim,
                        float* sums,
                        float* scratch) noexcept {
    decode_tile(stored_codec(*static_cast<const C*>(self.codec)), rows, dim, scratch, self.rung);
    for (std::size_t q = 0; q < num_queries; ++q) {
        for (std::size_t t = 0; t < rows.count; ++t) {
            const float weight = weights[q * attend_tile + t];
            for (std::size_t c = 0; c < dim; ++c) {
                sums[q * dim + c] += weight * scratch[t * dim + c];
            }
        }
    }
}

} // namespace detail

/// Floats of scratch that kernels of any codec need at most.
[[nodiscard]] constexpr std::size_t kernel_scratch(std::size_t group_size,
                                                   std::size_t dim) noexcept {
    return (attend_tile + (group_size > 1 ? group_size : 0)) * dim;
}

/// The table of a codec.
/// @param codec  referred to by the table; must outlive it
template <Codec C>
[[nodiscard]] row_kernels kernels_of(const C& codec, simd::isa at_most = simd::best()) noexcept {
    return {.codec = &codec,
            .group_size = codec.group_size(),
            .rung = simd::usable(at_most),
            .prepared_size = detail::floats_as_they_are,
            .prepare = detail::prepare_rotated<C>,
            .dots = detail::dots_of_decoded<C>,
            .accumulate = detail::accumulate_decoded<C>,
            .finish = detail::finish_rotated<C>};
}
template <Codec C>
row_kernels kernels_of(const C&& codec, simd::isa = simd::best()) = delete;

} // namespace v0
} // namespace kvcrush
