// SPDX-License-Identifier: Apache-2.0
/// @file
/// Kernels for codecs whose rows a vector register can take as they lie, in fp32.
#pragma once

#include <kvcrush/attend/detail/decoded_kernels.hpp>
#include <kvcrush/attend/detail/row_loaders_avx512.hpp>
#include <kvcrush/attend/detail/tile_kernels_avx2.hpp>
#include <kvcrush/attend/detail/tile_kernels_avx512.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/codec/codebook_row.hpp>
#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q5_1.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstddef>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {
namespace detail {

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
    } else if constexpr (std::is_same_v<C, q5_1_codec>) {
        return q5_1_rows_avx512{};
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

/// Tables of codebooks know how many bits there are.
template <std::size_t Bits>
void take_codebook_kernels(row_kernels& table) noexcept {
    if (table.rung == simd::isa::avx512) {
        table.dots = dots_as_stored_avx512<codebook_rows_avx512<Bits>>;
        table.accumulate = accumulate_as_stored_avx512<codebook_rows_avx512<Bits>>;
    }
}

#endif // KVCRUSH_X86_DISPATCH

/// Puts in the kernels that read rows of this codec as they lie, where there are some.
template <Codec C>
void take_fused_kernels(row_kernels& table) noexcept {
#if KVCRUSH_X86_DISPATCH
    using stored = stored_codec_of<C>;
    if constexpr (std::is_same_v<stored, codebook_row_codec>) {
        with_codebook_bits(stored_codec(*static_cast<const C*>(table.codec)).bits,
                           [&](auto bits) { take_codebook_kernels<bits>(table); });
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

} // namespace detail
} // namespace v0
} // namespace kvcrush
