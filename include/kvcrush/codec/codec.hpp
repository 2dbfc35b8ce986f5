// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a way of storing rows in fewer bytes has to offer. Keys and values choose theirs independently.
///
/// A codec is a small value. It encodes groups of rows: single rows for most, because an engine appends tokens one by
/// one and evicts them one by one; kivi's keys need several tokens at a time. How rows were chunked into calls never
/// shows: a group's bytes depend on its own rows alone.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/simd/isa.hpp>

#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// group_size()        tokens that are stored together, 1 for row codecs
/// group_bytes(dim)    what a group of rows of `dim` channels takes, all metadata included [bytes]
/// validate_for(dim)   throws std::invalid_argument if rows of `dim` channels cannot be stored
/// encode(rows, dim, bytes, rung)
///                     stores rows [group_size, dim]. False, with nothing written, if one holds NaN or infinity, or
///                     values that the format cannot hold
/// decode(bytes, dim, rows, rung)
///                     the rows again, [group_size, dim], as far as they were kept
template <typename C>
concept Codec = Policy<C> && requires(const C& codec,
                                      std::size_t dim,
                                      std::span<const float> rows,
                                      std::span<std::byte> bytes,
                                      std::span<const std::byte> stored,
                                      std::span<float> decoded,
                                      simd::isa rung) {
    { codec.group_size() } noexcept -> std::convertible_to<std::size_t>;
    { codec.group_bytes(dim) } noexcept -> std::convertible_to<std::size_t>;
    codec.validate_for(dim);
    { codec.encode(rows, dim, bytes, rung) } noexcept -> std::same_as<bool>;
    { codec.decode(stored, dim, decoded, rung) } noexcept;
};

/// A codec that stores rows turned into another basis by a rotation R. Attention stays in that basis: queries are turned
/// once, q . k = (R q) . (R k), and so is the output, sum of p v = R^-1 sum of p (R v).
///
/// rotate(rows, dim), unrotate(rows, dim)   in place, any number of rows
/// stored()                                 the codec that the rotated rows are stored with
template <typename C>
concept RotatingCodec =
    Codec<C> && requires(const C& codec, std::size_t dim, std::span<float> rows, simd::isa rung) {
        { codec.rotate(rows, dim, rung) } noexcept;
        { codec.unrotate(rows, dim, rung) } noexcept;
        requires Codec<std::remove_cvref_t<decltype(codec.stored())>>;
    };

/// A codec for keys that are stored less a vector that is fixed at the first encoding. Whoever holds the rows subtracts
/// it before encode(), keeps it, and adds q . mean to the logits of such rows (exact: see attend/).
template <typename C>
concept CentringCodec = Codec<C> && C::centres_keys;

/// Bytes of `count` rows. A codec of groups takes whole groups.
template <Codec C>
[[nodiscard]] constexpr std::size_t
encoded_bytes(const C& codec, std::size_t count, std::size_t dim) noexcept {
    return (count + codec.group_size() - 1) / codec.group_size() * codec.group_bytes(dim);
}

/// Bits per element, metadata included.
template <Codec C>
[[nodiscard]] constexpr double bits_per_element(const C& codec, std::size_t dim) noexcept {
    return 8.0 * static_cast<double>(codec.group_bytes(dim)) /
           static_cast<double>(codec.group_size() * dim);
}

} // namespace v0
} // namespace kvcrush
