// SPDX-License-Identifier: Apache-2.0
/// @file
/// The kernels of the library's own codecs whose rows a vector register can take as they lie, in fp32 and in integers.
///
/// A family of integer kernels says which rows it suits and how queries, dots and sums of such rows are done:
///     loader                             of rows that it does not suit, which are worked on in fp32
///     decoding_from                      see row_kernels
///     suits(dim)
///     query_bytes(dim)                   of one query as integers
///     prepare(queries, n, dim, out)      writes those, of n queries
///     dots(rows, queries, n, dim, out), accumulate(rows, weights, n, dim, sums)
#pragma once

#include <kvcrush/attend/detail/codebook_keys_avx512.hpp>
#include <kvcrush/attend/detail/codebook_values_avx512.hpp>
#include <kvcrush/attend/detail/float_kernels.hpp>
#include <kvcrush/attend/detail/integer_kernels_avx512.hpp>
#include <kvcrush/attend/detail/row_loaders_avx512.hpp>
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

#include <concepts>
#include <cstddef>
#include <limits>
#include <type_traits>

#if KVCRUSH_X86_DISPATCH

namespace kvcrush {
inline namespace v0 {
namespace detail {

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

template <typename Codes, typename Loader>
struct codes_in_integers {
    using loader = Loader;
    static constexpr std::size_t decoding_from = row_kernels{}.decoding_from;

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
    /// Never: 256 queries take three quarters of the time of floats (Sapphire Rapids).
    static constexpr std::size_t decoding_from = (std::numeric_limits<std::size_t>::max)();

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

template <typename Family>
void prepare_integers(const row_kernels& self,
                      const float* queries,
                      std::size_t num_queries,
                      std::size_t dim,
                      float* prepared) noexcept {
    float* const turned = prepared + integer_query_floats<Family>(num_queries, dim);
    self.turn(self, queries, num_queries, dim, turned);
    if (Family::suits(dim)) {
        Family::prepare(turned, num_queries, dim, reinterpret_cast<std::byte*>(prepared));
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

/// No loader, or no integers.
struct no_kernels {};

/// Kernels for rows that are loaded as they lie.
template <typename Wide, typename Narrow = no_kernels, typename Family = no_kernels>
struct loaded_rows {
    template <Codec C>
    static void take(const C&, arithmetic how, row_kernels& table) noexcept;
};

template <typename Wide, typename Narrow, typename Family>
template <Codec C>
void loaded_rows<Wide, Narrow, Family>::take(const C&,
                                             arithmetic how,
                                             row_kernels& table) noexcept {
    if (table.rung == simd::isa::avx512) {
        table.dots = dots_as_stored_avx512<Wide>;
        table.accumulate = accumulate_as_stored_avx512<Wide>;
        if constexpr (!std::is_same_v<Family, no_kernels>) {
            if (how == arithmetic::integer) {
                table.prepared_size = prepared_size_of_integers<Family>;
                table.prepare = prepare_integers<Family>;
                table.dots = dots_of_integers<Family>;
                table.accumulate = accumulate_integers<Family>;
                table.decoding_from = Family::decoding_from;
            }
        }
    } else if constexpr (!std::is_same_v<Narrow, no_kernels>) {
        take_float_kernels<Narrow>(table);
    }
}

template <typename Codes, typename Wide, typename Narrow = no_kernels>
using loaded_codes = loaded_rows<Wide, Narrow, codes_in_integers<Codes, Wide>>;

template <std::size_t Bits>
using loaded_codebook =
    loaded_rows<codebook_rows_avx512<Bits>, no_kernels, codebook_in_integers<Bits>>;

} // namespace detail

template <Element T>
struct row_kernels_for<dense_codec<T>>
    : detail::loaded_rows<detail::dense_rows_avx512<T>, detail::elements<T>> {};
template <>
struct row_kernels_for<int8_row_codec>
    : detail::loaded_codes<detail::int8_codes, detail::int8_rows_avx512, detail::scaled_bytes> {};
template <>
struct row_kernels_for<q8_0_codec>
    : detail::loaded_codes<detail::q8_0_codes, detail::q8_0_rows_avx512> {};
template <>
struct row_kernels_for<q4_0_codec>
    : detail::loaded_codes<detail::q4_0_codes, detail::q4_0_rows_avx512> {};
template <>
struct row_kernels_for<q5_1_codec> : detail::loaded_rows<detail::q5_1_rows_avx512> {};

/// Tables of codebooks know how many bits there are.
template <>
struct row_kernels_for<codebook_row_codec> {
    // A template, like those of the others, so that kernels are made only where somebody asks for them.
    template <std::same_as<codebook_row_codec> C>
    static void take(const C& codec, arithmetic how, row_kernels& table) noexcept {
        detail::with_codebook_bits(
            codec.bits, [&](auto bits) { detail::loaded_codebook<bits>::take(codec, how, table); });
    }
};

} // namespace v0
} // namespace kvcrush

#elif KVCRUSH_NEON

namespace kvcrush {
inline namespace v0 {

template <Element T>
struct row_kernels_for<dense_codec<T>> {
    static void take(const dense_codec<T>&, arithmetic, row_kernels& table) noexcept {
        detail::take_float_kernels<detail::elements<T>>(table);
    }
};
template <>
struct row_kernels_for<int8_row_codec> {
    static void take(const int8_row_codec&, arithmetic, row_kernels& table) noexcept {
        detail::take_float_kernels<detail::scaled_bytes>(table);
    }
};

} // namespace v0
} // namespace kvcrush
#endif
