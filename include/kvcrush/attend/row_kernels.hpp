// SPDX-License-Identifier: Apache-2.0
/// @file
/// What attention does with rows of a codec, as a table of functions: attention itself is compiled once, and the codec
/// is chosen per run of rows, not per row. kernels_of() makes the table of a codec.
#pragma once

#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/codec/codec.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstddef>
#include <cstdint>

namespace kvcrush {
inline namespace v0 {

/// How attention computes with encoded rows.
enum class arithmetic : std::uint8_t {
    /// In fp32, as if rows were decoded first: 1e-5 of the sum of absolute terms.
    exact,
    /// In integers, where the codec and the CPU allow it; elsewhere exact.
    /// Rows of int8_row and codebook_row that lie in tiles, as in the library's own cache: with AVX2, AVX-512 and NEON, the
    /// same on each. Queries, centroids and weights have 7 bits and a sign, see attend/detail/code_tile_kernels.inl.
    /// Rows one by one: int8_row, q8_0, q4_0, codebook_row (rows of multiples of 64 channels) and rotations of them, with
    /// AVX-512, where there are not many query rows at once. Beside codebook_row queries,
    /// centroids and weights have 8 bits, see attend/detail/codebook_*_avx512.hpp. Otherwise queries and weights have 16
    /// bits beside codes of 8, 12 beside codes of 4, relative to the largest channel of a query and the largest weight of
    /// a tile: far less than what encoding the rows has lost, see attend/detail/integer_kernels_avx512.hpp.
    integer
};

/// Functions of one codec. `codec` and `turning` point into the value they were made of, which has to live as long.
/// Query rows are the tokens times query heads that look at one kv head.
struct row_kernels {
    /// The codec that rows lie in memory with; of a RotatingCodec its stored().
    const void* codec = nullptr;
    /// The codec that turns rows into another basis, if one does.
    const void* turning = nullptr;
    std::size_t group_size = 1;
    /// Of rows that lie in tiles, see attend/code_tiles.hpp.
    tile_role role = tile_role::keys;
    /// With several queries, query rows from which on tiles are decoded once and worked on as floats: dots() and
    /// accumulate() are then not used. At 24 rows of f16 a sixth faster, at 192 a third (Sapphire Rapids). More where
    /// these are faster still.
    std::size_t decoding_from = 24;
    simd::isa rung = simd::isa::scalar;

    /// Queries [num_queries, dim], already scaled, into the codec's basis, likewise.
    void (*turn)(const row_kernels& self,
                 const float* queries,
                 std::size_t num_queries,
                 std::size_t dim,
                 float* turned) noexcept = nullptr;
    /// Floats that prepare() writes, at least num_queries * dim.
    std::size_t (*prepared_size)(std::size_t num_queries, std::size_t dim) noexcept = nullptr;
    /// Queries as turn() takes them into the form that dots() wants. Whatever else that is, what turn() writes comes last.
    void (*prepare)(const row_kernels& self,
                    const float* queries,
                    std::size_t num_queries,
                    std::size_t dim,
                    float* prepared) noexcept = nullptr;
    /// Rows of a tile as floats [rows, dim] in the codec's basis.  @param out [kernel_scratch(group_size, dim)]
    void (*decode)(const row_kernels& self,
                   const tile_rows& rows,
                   std::size_t dim,
                   float* out) noexcept = nullptr;
    /// out[q * attend_tile + t] = query q . row t.  @param scratch [kernel_scratch(group_size, dim)], as below
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

/// The kernels that a codec brings itself, here none. To be specialised for codecs whose rows can be worked on as they
/// lie; take() then replaces functions of a table that does everything with decode() already: usually `dots` and
/// `accumulate`, which find the codec behind `self.codec`, also where another codec turns its rows.
///
///     template <>
///     struct kvcrush::row_kernels_for<my_codec> {
///         static void take(const my_codec& codec, arithmetic how, row_kernels& table) noexcept;
///     };
/// It must be known wherever kernels_of() is asked for the codec.
template <Codec C>
struct row_kernels_for {
    static void take(const C&, arithmetic, row_kernels&) noexcept {}
};

/// Floats of scratch that kernels of any codec need at most.
[[nodiscard]] constexpr std::size_t kernel_scratch(std::size_t group_size,
                                                   std::size_t dim) noexcept {
    return (attend_tile + (group_size > 1 ? group_size : 0)) * dim;
}

} // namespace v0
} // namespace kvcrush
