// SPDX-License-Identifier: Apache-2.0
/// @file
/// What attention does with rows of a codec, as a table of functions: attention itself is compiled once, and the codec
/// is chosen per run of rows, not per row.
///
/// Every codec gets a working table from its decode(). Codecs whose rows a vector register can take as they lie bring
/// kernels of their own (attend/detail/).
#pragma once

#include <kvcrush/attend/detail/codebook_kernels_avx512.hpp>
#include <kvcrush/attend/detail/integer_kernels_avx512.hpp>
#include <kvcrush/attend/detail/tile_kernels_avx2.hpp>
#include <kvcrush/attend/detail/tile_kernels_avx512.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/codec/codebook_row.hpp>
#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

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

/// Rows of a tile as they are after decoding, in the manner of stored rows.
inline void locate_decoded(const float* rows, std::size_t dim, tile_rows& tile) noexcept {
    locate_rows({.data = reinterpret_cast<const std::byte*>(rows), .stride = dim * sizeof(float)},
                1,
                0,
                tile.count,
                tile);
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

inline void dots_of_floats(const tile_rows& rows,
                           const float* queries,
                           std::size_t num_queries,
                           std::size_t dim,
                           float* out,
                           simd::isa rung) noexcept {
    switch (rung) {
#if KVCRUSH_X86_DISPATCH
    case simd::isa::avx512:
        return dots_avx512<dense_rows_avx512<float>>(rows, queries, num_queries, dim, out);
    case simd::isa::avx2:
        return dots_avx2<dense_rows_avx2<float>>(rows, queries, num_queries, dim, out);
#endif
    default: break;
    }
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
    switch (rung) {
#if KVCRUSH_X86_DISPATCH
    case simd::isa::avx512:
        return accumulate_avx512<dense_rows_avx512<float>>(rows, weights, num_queries, dim, sums);
    case simd::isa::avx2:
        return accumulate_avx2<dense_rows_avx2<float>>(rows, weights, num_queries, dim, sums);
#endif
    default: break;
    }
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

template <Codec C>
void dots_of_decoded(const row_kernels& self,
                     const tile_rows& rows,
                     const float* prepared,
                     std::size_t num_queries,
                     std::size_t dim,
                     float* out,
                     float* scratch) noexcept {
    const auto& codec = stored_codec(*static_cast<const C*>(self.codec));
    prefetch_next(rows, codec.group_bytes(dim));
    decode_tile(codec, rows, dim, scratch, self.rung);
    tile_rows decoded;
    decoded.count = rows.count;
    locate_decoded(scratch, dim, decoded);
    dots_of_floats(decoded, prepared, num_queries, dim, out, self.rung);
}

template <Codec C>
void accumulate_decoded(const row_kernels& self,
                        const tile_rows& rows,
                        const float* weights,
                        std::size_t num_queries,
                        std::size_t dim,
                        float* sums,
                        float* scratch) noexcept {
    const auto& codec = stored_codec(*static_cast<const C*>(self.codec));
    prefetch_next(rows, codec.group_bytes(dim));
    decode_tile(codec, rows, dim, scratch, self.rung);
    tile_rows decoded;
    decoded.count = rows.count;
    locate_decoded(scratch, dim, decoded);
    accumulate_floats(decoded, weights, num_queries, dim, sums, self.rung);
}

/// For codecs without a row loader: attention decodes a tile at a time.
struct no_row_loader {};

#if KVCRUSH_X86_DISPATCH

template <Codec C>
[[nodiscard]] constexpr auto row_loader_avx512() noexcept {
    if constexpr (std::is_same_v<C, dense_codec<float>>) {
        return dense_rows_avx512<float>{};
    } else if constexpr (std::is_same_v<C, dense_codec<f16>>) {
        return dense_rows_avx512<f16>{};
    } else if constexpr (std::is_same_v<C, dense_codec<bf16>>) {
        return dense_rows_avx512<bf16>{};
    } else if constexpr (std::is_same_v<C, int8_row_codec>) {
        return int8_rows_avx512{};
    } else if constexpr (std::is_same_v<C, q8_0_codec>) {
        return q8_0_rows_avx512{};
    } else if constexpr (std::is_same_v<C, q4_0_codec>) {
        return q4_0_rows_avx512{};
    } else {
        return no_row_loader{};
    }
}

template <Codec C>
[[nodiscard]] constexpr auto row_loader_avx2() noexcept {
    if constexpr (std::is_same_v<C, dense_codec<float>>) {
        return dense_rows_avx2<float>{};
    } else if constexpr (std::is_same_v<C, dense_codec<f16>>) {
        return dense_rows_avx2<f16>{};
    } else if constexpr (std::is_same_v<C, dense_codec<bf16>>) {
        return dense_rows_avx2<bf16>{};
    } else if constexpr (std::is_same_v<C, int8_row_codec>) {
        return int8_rows_avx2{};
    } else {
        return no_row_loader{};
    }
}

template <typename Loader>
void dots_as_stored_avx512(const row_kernels&,
                           const tile_rows& rows,
                           const float* prepared,
                           std::size_t num_queries,
                           std::size_t dim,
                           float* out,
                           float*) noexcept {
    dots_avx512<Loader>(rows, prepared, num_queries, dim, out);
}

template <typename Loader>
void accumulate_as_stored_avx512(const row_kernels&,
                                 const tile_rows& rows,
                                 const float* weights,
                                 std::size_t num_queries,
                                 std::size_t dim,
                                 float* sums,
                                 float*) noexcept {
    accumulate_avx512<Loader>(rows, weights, num_queries, dim, sums);
}

template <typename Loader>
void dots_as_stored_avx2(const row_kernels&,
                         const tile_rows& rows,
                         const float* prepared,
                         std::size_t num_queries,
                         std::size_t dim,
                         float* out,
                         float*) noexcept {
    dots_avx2<Loader>(rows, prepared, num_queries, dim, out);
}

template <typename Loader>
void accumulate_as_stored_avx2(const row_kernels&,
                               const tile_rows& rows,
                               const float* weights,
                               std::size_t num_queries,
                               std::size_t dim,
                               float* sums,
                               float*) noexcept {
    accumulate_avx2<Loader>(rows, weights, num_queries, dim, sums);
}

template <Codec C>
[[nodiscard]] constexpr auto integer_codes() noexcept {
    if constexpr (std::is_same_v<C, int8_row_codec>) {
        return int8_codes{};
    } else if constexpr (std::is_same_v<C, q8_0_codec>) {
        return q8_0_codes{};
    } else if constexpr (std::is_same_v<C, q4_0_codec>) {
        return q4_0_codes{};
    } else {
        return no_row_loader{};
    }
}

/// Rows of other lengths are worked on in fp32.
[[nodiscard]] constexpr bool suits_integers(std::size_t dim) noexcept {
    return dim % 16 == 0 && dim <= integer_max_dim;
}

/// Floats in front of which the integers of the queries stand while they are rotated.
template <typename Codes>
[[nodiscard]] std::size_t integer_query_floats(std::size_t num_queries, std::size_t dim) noexcept {
    return num_queries * integer_queries<Codes>::query_bytes(dim) / sizeof(float);
}

template <typename Codes>
std::size_t integer_prepared_size(std::size_t num_queries, std::size_t dim) noexcept {
    return num_queries * dim +
           (suits_integers(dim) ? integer_query_floats<Codes>(num_queries, dim) : 0);
}

template <Codec C, typename Codes>
void prepare_integers(const row_kernels& self,
                      const float* queries,
                      std::size_t num_queries,
                      std::size_t dim,
                      float* prepared) noexcept {
    if (!suits_integers(dim)) {
        return prepare_rotated<C>(self, queries, num_queries, dim, prepared);
    }
    float* const rotated = prepared + integer_query_floats<Codes>(num_queries, dim);
    prepare_rotated<C>(self, queries, num_queries, dim, rotated);
    integer_queries<Codes>::prepare(
        rotated, num_queries, dim, reinterpret_cast<std::byte*>(prepared));
}

template <typename Loader, typename Codes>
void dots_of_integers(const row_kernels&,
                      const tile_rows& rows,
                      const float* prepared,
                      std::size_t num_queries,
                      std::size_t dim,
                      float* out,
                      float*) noexcept {
    if (suits_integers(dim)) {
        integer_dots<Codes>(
            rows, reinterpret_cast<const std::byte*>(prepared), num_queries, dim, out);
    } else {
        dots_avx512<Loader>(rows, prepared, num_queries, dim, out);
    }
}

template <typename Loader, typename Codes>
void accumulate_integers(const row_kernels&,
                         const tile_rows& rows,
                         const float* weights,
                         std::size_t num_queries,
                         std::size_t dim,
                         float* sums,
                         float*) noexcept {
    if (suits_integers(dim)) {
        integer_accumulate<Codes>(rows, weights, num_queries, dim, sums);
    } else {
        accumulate_avx512<Loader>(rows, weights, num_queries, dim, sums);
    }
}

template <std::size_t Bits>
std::size_t codebook_prepared_size(std::size_t num_queries, std::size_t dim) noexcept {
    const std::size_t bytes =
        suits_integer_codebook(dim) ? codebook_queries<Bits>::query_bytes(dim) : 0;
    return num_queries * (dim + bytes / sizeof(float));
}

template <Codec C, std::size_t Bits>
void prepare_codebook(const row_kernels& self,
                      const float* queries,
                      std::size_t num_queries,
                      std::size_t dim,
                      float* prepared) noexcept {
    if (!suits_integer_codebook(dim)) {
        return prepare_rotated<C>(self, queries, num_queries, dim, prepared);
    }
    float* const rotated =
        prepared + num_queries * codebook_queries<Bits>::query_bytes(dim) / sizeof(float);
    prepare_rotated<C>(self, queries, num_queries, dim, rotated);
    codebook_queries<Bits>::prepare(
        rotated, num_queries, dim, reinterpret_cast<std::byte*>(prepared));
}

template <std::size_t Bits>
void dots_of_codebook(const row_kernels&,
                      const tile_rows& rows,
                      const float* prepared,
                      std::size_t num_queries,
                      std::size_t dim,
                      float* out,
                      float*) noexcept {
    if (suits_integer_codebook(dim)) {
        codebook_dots<Bits>(
            rows, reinterpret_cast<const std::byte*>(prepared), num_queries, dim, out);
    } else {
        dots_avx512<codebook_rows_avx512<Bits>>(rows, prepared, num_queries, dim, out);
    }
}

template <std::size_t Bits>
void accumulate_codebook(const row_kernels&,
                         const tile_rows& rows,
                         const float* weights,
                         std::size_t num_queries,
                         std::size_t dim,
                         float* sums,
                         float*) noexcept {
    if (suits_integer_codebook(dim)) {
        codebook_accumulate<Bits>(rows, weights, num_queries, dim, sums);
    } else {
        accumulate_avx512<codebook_rows_avx512<Bits>>(rows, weights, num_queries, dim, sums);
    }
}

/// Tables of codebooks know how many bits there are.
template <std::size_t Bits>
void take_codebook_kernels(row_kernels& table) noexcept {
    if (table.rung == simd::isa::avx512) {
        table.dots = dots_as_stored_avx512<codebook_rows_avx512<Bits>>;
        table.accumulate = accumulate_as_stored_avx512<codebook_rows_avx512<Bits>>;
    }
}

template <Codec C, std::size_t Bits>
void take_integer_codebook_kernels(row_kernels& table) noexcept {
    if (table.rung == simd::isa::avx512 && simd::has_vnni()) {
        table.prepared_size = codebook_prepared_size<Bits>;
        table.prepare = prepare_codebook<C, Bits>;
        table.dots = dots_of_codebook<Bits>;
        table.accumulate = accumulate_codebook<Bits>;
    }
}

#endif // KVCRUSH_X86_DISPATCH

template <Codec C>
using stored_codec_of = std::remove_cvref_t<decltype(stored_codec(std::declval<const C&>()))>;

/// Puts in the kernels that read rows of this codec as they lie, where there are some.
template <Codec C>
void take_fused_kernels(row_kernels& table) noexcept {
#if KVCRUSH_X86_DISPATCH
    using stored = stored_codec_of<C>;
    if constexpr (std::is_same_v<stored, codebook_row_codec>) {
        switch (stored_codec(*static_cast<const C*>(table.codec)).bits) {
        case 2: return take_codebook_kernels<2>(table);
        case 3: return take_codebook_kernels<3>(table);
        case 4: return take_codebook_kernels<4>(table);
        default: return;
        }
    } else if (table.rung == simd::isa::avx512) {
        using loader = decltype(row_loader_avx512<stored>());
        if constexpr (!std::is_same_v<loader, no_row_loader>) {
            table.dots = dots_as_stored_avx512<loader>;
            table.accumulate = accumulate_as_stored_avx512<loader>;
        }
    } else if (table.rung == simd::isa::avx2) {
        using loader = decltype(row_loader_avx2<stored>());
        if constexpr (!std::is_same_v<loader, no_row_loader>) {
            table.dots = dots_as_stored_avx2<loader>;
            table.accumulate = accumulate_as_stored_avx2<loader>;
        }
    }
#else
    static_cast<void>(table);
#endif
}

/// Puts in kernels of integer arithmetic, where codec and machine have them.
template <Codec C>
void take_integer_kernels(row_kernels& table) noexcept {
#if KVCRUSH_X86_DISPATCH
    using stored = stored_codec_of<C>;
    using codes = decltype(integer_codes<stored>());
    if constexpr (std::is_same_v<stored, codebook_row_codec>) {
        switch (stored_codec(*static_cast<const C*>(table.codec)).bits) {
        case 2: return take_integer_codebook_kernels<C, 2>(table);
        case 3: return take_integer_codebook_kernels<C, 3>(table);
        case 4: return take_integer_codebook_kernels<C, 4>(table);
        default: return;
        }
    } else if constexpr (!std::is_same_v<codes, no_row_loader>) {
        if (table.rung == simd::isa::avx512 && simd::has_vnni()) {
            using loader = decltype(row_loader_avx512<stored>());
            table.prepared_size = integer_prepared_size<codes>;
            table.prepare = prepare_integers<C, codes>;
            table.dots = dots_of_integers<loader, codes>;
            table.accumulate = accumulate_integers<loader, codes>;
        }
    }
#else
    static_cast<void>(table);
#endif
}

} // namespace detail

/// Floats of scratch that kernels of any codec need at most.
[[nodiscard]] constexpr std::size_t kernel_scratch(std::size_t group_size,
                                                   std::size_t dim) noexcept {
    return (attend_tile + (group_size > 1 ? group_size : 0)) * dim;
}

/// How attention computes with encoded rows.
enum class arithmetic : std::uint8_t {
    /// In fp32, as if rows were decoded first: 1e-5 of the sum of absolute terms.
    exact,
    /// In integers, for int8_row, q8_0, q4_0, codebook_row (rows of multiples of 64 channels) and rotations of them, on
    /// CPUs with AVX512_VNNI and AVX512_VBMI; elsewhere exact. Beside codebook_row queries, centroids and weights have 8
    /// bits, see attend/detail/codebook_kernels_avx512.hpp. Otherwise queries and weights have 16 bits beside codes of 8, 12 beside codes of 4, relative to the largest channel
    /// of a query and the largest weight of a tile: far less than what encoding the rows has lost, see
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
