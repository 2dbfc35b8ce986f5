// SPDX-License-Identifier: Apache-2.0
/// @file
/// Where the rows of one kv head lie, in whatever codec: one after the other, some of them, or in pages.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace kvcrush {
inline namespace v0 {

/// Rows that attention reads together.
inline constexpr std::size_t attend_tile = 64;

/// What rows are, for those ways to store them that treat the two differently.
enum class tile_role : std::uint8_t { keys, values };

/// Keys or values of one kv head, as the caller holds them. Row i of the sequence of rows lies in group i / group_size
/// of its codec, as the row i % group_size of that group.
///
/// Contiguous or strided: group g at data + g * stride. Selected: row i is row index[i] of those. Paged: page p of the
/// pool at data + p * page_stride, and row i in page pages[i / page_size].
struct stored_rows {
    const std::byte* data = nullptr;
    /// From one group to the next [bytes].
    std::size_t stride = 0;
    /// Which rows are read, in which order; nullptr for all of them.
    const token_index* index = nullptr;
    /// Block table; nullptr where memory is not paged.
    const page_index* pages = nullptr;
    /// Rows in a page, a multiple of the codec's group.
    std::size_t page_size = 0;
    /// From one page of the pool to the next [bytes].
    std::size_t page_stride = 0;
};

/// Up to attend_tile rows, located.
struct tile_rows {
    /// The group that holds each row. Behind the last one it is repeated up to a multiple of 16, so that kernels that
    /// take several rows at a time need not look.
    const std::byte* group[attend_tile];
    /// Which row of its group each is; 0 throughout for row codecs.
    std::uint8_t within[attend_tile];
    std::size_t count = 0;
    /// Row i is row i % group_size of a group: whole groups, the last one up to where rows end.
    bool in_order = false;
    /// The rows that are read next, for kernels that ask memory for them while they compute; nullptr for none.
    const tile_rows* next = nullptr;
};

/// Locates rows [first, first + count).
/// @pre count <= attend_tile, group_size <= 256
inline void locate_rows(const stored_rows& rows,
                        std::size_t group_size,
                        std::size_t first,
                        std::size_t count,
                        tile_rows& tile) noexcept {
    KVCRUSH_ASSERT(count <= attend_tile && group_size >= 1 && group_size <= 256);
    tile.count = count;
    tile.in_order = rows.index == nullptr && first % group_size == 0;
    // Divisions take longer than the arithmetic on a row, so the usual cases do without.
    if (group_size == 1 && rows.pages == nullptr) {
        std::fill_n(tile.within, attend_tile, std::uint8_t{0});
        if (rows.index == nullptr) {
            const std::byte* row = rows.data + first * rows.stride;
            for (std::size_t i = 0; i < count; ++i, row += rows.stride) {
                tile.group[i] = row;
            }
        } else {
            for (std::size_t i = 0; i < count; ++i) {
                tile.group[i] = rows.data + rows.index[first + i] * rows.stride;
            }
        }
    } else if (tile.in_order && rows.pages == nullptr) {
        const std::byte* group = rows.data + first / group_size * rows.stride;
        std::size_t i = 0;
        // Groups of sixteen, as rows in tiles are, by loops of known length: a quarter of the time.
        for (; group_size == 16 && i + 16 <= count; i += 16, group += rows.stride) {
            for (std::size_t j = 0; j < 16; ++j) {
                tile.group[i + j] = group;
                tile.within[i + j] = static_cast<std::uint8_t>(j);
            }
        }
        for (; i < count; group += rows.stride) {
            const std::size_t end = (std::min)(i + group_size, count);
            for (std::uint8_t within = 0; i < end; ++i, ++within) {
                tile.group[i] = group;
                tile.within[i] = within;
            }
        }
    } else if (group_size == 1 && rows.index == nullptr) {
        std::size_t page = count == 0 ? 0 : first / rows.page_size;
        std::size_t row = count == 0 ? 0 : first % rows.page_size;
        for (std::size_t i = 0; i < count; ++page, row = 0) {
            const std::byte* const base =
                rows.data + static_cast<std::size_t>(rows.pages[page]) * rows.page_stride;
            for (; row < rows.page_size && i < count; ++row, ++i) {
                tile.group[i] = base + row * rows.stride;
                tile.within[i] = 0;
            }
        }
    } else {
        for (std::size_t i = 0; i < count; ++i) {
            std::size_t row = rows.index == nullptr ? first + i : rows.index[first + i];
            const std::byte* base = rows.data;
            if (rows.pages != nullptr) {
                base +=
                    static_cast<std::size_t>(rows.pages[row / rows.page_size]) * rows.page_stride;
                row %= rows.page_size;
            }
            tile.group[i] = base + row / group_size * rows.stride;
            tile.within[i] = static_cast<std::uint8_t>(row % group_size);
        }
    }
    for (std::size_t i = count; i % 16 != 0; ++i) {
        tile.group[i] = tile.group[count - 1];
        tile.within[i] = tile.within[count - 1];
    }
}

} // namespace v0
} // namespace kvcrush
