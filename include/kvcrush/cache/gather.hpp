// SPDX-License-Identifier: Apache-2.0
/// @file
/// Copies the kept rows of each kv head into other memory, whatever their elements are.
#pragma once

#include <kvcrush/cache/compact.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/layout.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// Keys or values of one layer as bytes: rows of any type, also of types whose elements have no address of their own, as
/// in the blocks of q4_0.
struct byte_extent {
    std::size_t num_kv_heads = 0;
    std::size_t num_rows = 0;
    /// Of a row of one kv head [bytes].
    std::size_t row_bytes = 0;
    /// Between neighbouring heads and neighbouring rows [bytes].
    std::size_t head_stride = 0;
    std::size_t row_stride = 0;

    /// [num_rows, num_kv_heads, row_bytes], the layout of engines that write a token at a time.
    [[nodiscard]] static constexpr byte_extent
    token_major(std::size_t num_kv_heads, std::size_t num_rows, std::size_t row_bytes) noexcept {
        return {num_kv_heads,
                num_rows,
                row_bytes,
                row_bytes,
                detail::saturating_multiply(num_kv_heads, row_bytes)};
    }
    /// [num_kv_heads, num_rows, row_bytes]
    [[nodiscard]] static constexpr byte_extent
    head_major(std::size_t num_kv_heads, std::size_t num_rows, std::size_t row_bytes) noexcept {
        return {num_kv_heads,
                num_rows,
                row_bytes,
                detail::saturating_multiply(num_rows, row_bytes),
                row_bytes};
    }
};

/// Non-owning view of such rows, trivially copyable.
/// @tparam Byte  std::byte, const for rows that are only read
template <typename Byte>
    requires std::is_same_v<std::remove_const_t<Byte>, std::byte>
class byte_rows {
public:
    /// @throws std::invalid_argument if the memory is shorter than the extent reaches, if strides let rows overlap, or if
    ///         sizes overflow
    byte_rows(std::span<Byte> memory, const byte_extent& extent)
        : memory_(memory), extent_(extent) {
        const std::size_t needed =
            detail::required_elements(extent.num_kv_heads,
                                      extent.num_rows,
                                      extent.row_bytes,
                                      {extent.head_stride, extent.row_stride, 1},
                                      "byte_rows");
        detail::require(memory.size() >= needed,
                        "byte_rows: the memory has ",
                        memory.size(),
                        " bytes; the extent needs ",
                        needed);
        if (needed > 0) {
            detail::require_apart(std::array{detail::axis{extent.num_kv_heads, extent.head_stride},
                                             detail::axis{extent.num_rows, extent.row_stride},
                                             detail::axis{extent.row_bytes, 1}},
                                  "byte_rows");
        }
    }

    [[nodiscard]] const byte_extent& extent() const noexcept { return extent_; }
    [[nodiscard]] std::span<Byte> memory() const noexcept { return memory_; }
    /// The first byte of a row.
    /// @pre head < num_kv_heads, index < num_rows
    [[nodiscard]] Byte* row(std::size_t head, std::size_t index) const noexcept {
        return memory_.data() + head * extent_.head_stride + index * extent_.row_stride;
    }

private:
    std::span<Byte> memory_;
    byte_extent extent_;
};

namespace detail {

[[nodiscard]] inline bool share_memory(std::span<const std::byte> a,
                                       std::span<const std::byte> b) noexcept {
    const auto first_of = [](std::span<const std::byte> memory) {
        return reinterpret_cast<std::uintptr_t>(memory.data());
    };
    return !a.empty() && !b.empty() && first_of(a) < first_of(b) + b.size() &&
           first_of(b) < first_of(a) + a.size();
}

/// The rows named, one after the other.
/// @param to  stride apart, as many
inline void copy_rows(std::span<const token_index> rows,
                      const std::byte* from,
                      std::size_t from_stride,
                      std::byte* to,
                      std::size_t to_stride,
                      std::size_t row_bytes) noexcept {
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (i + prefetch_distance < rows.size()) {
            prefetch_bytes(from + rows[i + prefetch_distance] * from_stride, row_bytes);
        }
        std::memcpy(to + i * to_stride, from + rows[i] * from_stride, row_bytes);
    }
}

/// @throws std::invalid_argument unless all that is kept is there, and there is room for it
inline void require_gatherable(const byte_rows<const std::byte>& rows,
                               const selection& kept,
                               const byte_rows<std::byte>& destination) {
    const byte_extent& from = rows.extent();
    const byte_extent& to = destination.extent();
    require(kept.num_kv_heads() == from.num_kv_heads && to.num_kv_heads == from.num_kv_heads,
            "gather: the rows are those of ",
            from.num_kv_heads,
            " kv heads, the selection has ",
            kept.num_kv_heads(),
            " and the destination ",
            to.num_kv_heads);
    require(to.row_bytes == from.row_bytes,
            "gather: rows have ",
            from.row_bytes,
            " bytes, those of the destination ",
            to.row_bytes);
    for (std::size_t head = 0; head < kept.num_kv_heads(); ++head) {
        const std::span<const token_index> own = kept.kept(head);
        require(own.size() <= to.num_rows,
                "gather: head ",
                head,
                " keeps ",
                own.size(),
                " rows; the destination has room for ",
                to.num_rows);
        for (const token_index row : own) {
            require(row < from.num_rows,
                    "gather: head ",
                    head,
                    " keeps row ",
                    row,
                    "; there are ",
                    from.num_rows);
        }
    }
    require(!share_memory(rows.memory(), destination.memory()),
            "gather: the destination overlaps the rows; compact() moves them within their memory");
}

} // namespace detail

/// Copies the kept rows of each kv head to rows 0, 1, 2, ... of that head in other memory. What lies behind them there
/// stays as it was. A selection that is not ascending, or names a row more than once, is followed as it is.
///
///     gather({state, byte_extent::token_major(3, 4096, 128)}, kept, {smaller, byte_extent::token_major(3, 1024, 128)});
/// @throws std::invalid_argument, before anything is written, if heads or bytes of a row differ, a row is not there, the
///         destination is too small, or the two share memory
/// @note allocates nothing; O(kept rows)
inline void gather(const byte_rows<const std::byte>& rows,
                   const selection& kept,
                   const byte_rows<std::byte>& destination) {
    detail::require_gatherable(rows, kept, destination);
    const byte_extent& from = rows.extent();
    const byte_extent& to = destination.extent();
    if (from.row_bytes == 0) {
        return; // there may be no memory at all
    }
    for (std::size_t head = 0; head < kept.num_kv_heads(); ++head) {
        const std::span<const token_index> own = kept.kept(head);
        if (!own.empty()) {
            detail::copy_rows(own,
                              rows.row(head, 0),
                              from.row_stride,
                              destination.row(head, 0),
                              to.row_stride,
                              from.row_bytes);
        }
    }
}

} // namespace v0
} // namespace kvcrush
