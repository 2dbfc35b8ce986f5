// SPDX-License-Identifier: Apache-2.0
/// @file
/// Kernels for codecs whose rows integer arithmetic can take as they lie.
///
/// A family says which rows it suits and how queries, dots and sums of such rows are done:
///     loader                             of rows that it does not suit, which are worked on in fp32
///     suits(dim)
///     query_bytes(dim)                   of one query as integers
///     prepare(queries, n, dim, out)      writes those, of n queries
///     dots(rows, queries, n, dim, out), accumulate(rows, weights, n, dim, sums)
#pragma once

#include <kvcrush/attend/detail/codebook_keys_avx512.hpp>
#include <kvcrush/attend/detail/codebook_values_avx512.hpp>
#include <kvcrush/attend/detail/decoded_kernels.hpp>
#include <kvcrush/attend/detail/fused_kernels.hpp>
#include <kvcrush/attend/detail/integer_kernels_avx512.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/codec/codebook_row.hpp>
#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstddef>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {
namespace detail {

#if KVCRUSH_X86_DISPATCH

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

template <typename Codes, typename Loader>
struct codes_in_integers {
    using loader = Loader;

    static constexpr bool suits(std::size_t dim) noexcept {
        return dim % 16 == 0 && dim <= integer_max_dim;
    }
    static constexpr std::size_t query_bytes(std::size_t dim) noexcept {
        return integer_queries<Codes>::query_bytes(dim);
    }
    static constexpr auto prepare = integer_queries<Codes>::prepare;
    static constexpr auto dots = integer_dots<Codes>;
    static constexpr auto accumulate = integer_accumulate<Codes>;
};

template <std::size_t Bits>
struct codebook_in_integers {
    using loader = codebook_rows_avx512<Bits>;

    static constexpr bool suits(std::size_t dim) noexcept { return suits_integer_codebook(dim); }
    static constexpr std::size_t query_bytes(std::size_t dim) noexcept {
        return codebook_queries<Bits>::query_bytes(dim);
    }
    static constexpr auto prepare = codebook_queries<Bits>::prepare;
    static constexpr auto dots = codebook_dots<Bits>;
    static constexpr auto accumulate = codebook_accumulate<Bits>;
};

/// Floats in front, in which the queries lie as integers; behind them they are rotated.
template <typename Family>
[[nodiscard]] std::size_t integer_query_floats(std::size_t num_queries, std::size_t dim) noexcept {
    return Family::suits(dim) ? num_queries * Family::query_bytes(dim) / sizeof(float) : 0;
}

template <typename Family>
std::size_t prepared_size_of_integers(std::size_t num_queries, std::size_t dim) noexcept {
    return integer_query_floats<Family>(num_queries, dim) + num_queries * dim;
}

template <Codec C, typename Family>
void prepare_integers(const row_kernels& self,
                      const float* queries,
                      std::size_t num_queries,
                      std::size_t dim,
                      float* prepared) noexcept {
    float* const rotated = prepared + integer_query_floats<Family>(num_queries, dim);
    prepare_rotated<C>(self, queries, num_queries, dim, rotated);
    if (Family::suits(dim)) {
        Family::prepare(rotated, num_queries, dim, reinterpret_cast<std::byte*>(prepared));
    }
}

template <typename Family>
void dots_of_integers(const row_kernels& self,
                      const tile_rows& rows,
                      const float* prepared,
                      std::size_t num_queries,
                      std::size_t dim,
                      float* out,
                      float* scratch) noexcept {
    if (Family::suits(dim)) {
        const auto* const queries = reinterpret_cast<const std::byte*>(prepared);
        Family::dots(rows, queries, num_queries, dim, out);
    } else {
        dots_as_stored_avx512<typename Family::loader>(
            self, rows, prepared, num_queries, dim, out, scratch);
    }
}

template <typename Family>
void accumulate_integers(const row_kernels& self,
                         const tile_rows& rows,
                         const float* weights,
                         std::size_t num_queries,
                         std::size_t dim,
                         float* sums,
                         float* scratch) noexcept {
    if (Family::suits(dim)) {
        Family::accumulate(rows, weights, num_queries, dim, sums);
    } else {
        accumulate_as_stored_avx512<typename Family::loader>(
            self, rows, weights, num_queries, dim, sums, scratch);
    }
}

template <Codec C, typename Family>
void take_integers(row_kernels& table) noexcept {
    if (table.rung == simd::isa::avx512 && simd::has_vnni()) {
        table.prepared_size = prepared_size_of_integers<Family>;
        table.prepare = prepare_integers<C, Family>;
        table.dots = dots_of_integers<Family>;
        table.accumulate = accumulate_integers<Family>;
    }
}

#endif // KVCRUSH_X86_DISPATCH

/// Puts in kernels of integer arithmetic, where codec and machine have them.
template <Codec C>
void take_integer_kernels(row_kernels& table) noexcept {
#if KVCRUSH_X86_DISPATCH
    using stored = stored_codec_of<C>;
    using codes = decltype(integer_codes<stored>());
    if constexpr (std::is_same_v<stored, codebook_row_codec>) {
        with_codebook_bits(stored_codec(*static_cast<const C*>(table.codec)).bits,
                           [&](auto bits) { take_integers<C, codebook_in_integers<bits>>(table); });
    } else if constexpr (!std::is_same_v<codes, no_row_loader>) {
        using loader = decltype(row_loader_avx512<stored>());
        take_integers<C, codes_in_integers<codes, loader>>(table);
    }
#else
    static_cast<void>(table);
#endif
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
