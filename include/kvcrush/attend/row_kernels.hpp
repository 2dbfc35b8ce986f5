// SPDX-License-Identifier: Apache-2.0
/// @file
/// What attention does with rows of a codec, as a table of functions: attention itself is compiled once, and the codec
/// is chosen per run of rows, not per row. kernels_of() makes the table of a codec.
#pragma once

#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstddef>

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

/// Floats of scratch that kernels of any codec need at most.
[[nodiscard]] constexpr std::size_t kernel_scratch(std::size_t group_size,
                                                   std::size_t dim) noexcept {
    return (attend_tile + (group_size > 1 ? group_size : 0)) * dim;
}

} // namespace v0
} // namespace kvcrush
