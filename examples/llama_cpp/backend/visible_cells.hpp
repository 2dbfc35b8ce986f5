// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the mask of a FLASH_ATTN_EXT node says, in terms of the library's attention.
#pragma once

#include <kvcrush/core/types.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace kvcrush_ggml {

/// The mask of one stream.
struct mask_rows {
    const kvcrush::f16* data = nullptr; ///< nullptr: every query sees every cell
    std::size_t stride = 0;             ///< from one query to the next [elements]
    std::size_t num_queries = 0;
    std::size_t num_cells = 0;

    [[nodiscard]] std::span<const kvcrush::f16> row(std::size_t query) const noexcept {
        return {data + query * stride, num_cells};
    }
};

/// How attention is to be asked for.
enum class visibility {
    nothing, ///< no query sees a cell
    causal,  ///< cells [first, end) for the last query, one less for each before it
    /// Each query by itself: it sees a run of cells, or some that are listed. The cheapest way for a few queries of
    /// different sequences, which see different cells.
    each,
    masked ///< as the mask says, cells [first, end)
};

struct visible_cells {
    visibility how = visibility::nothing;
    std::size_t first = 0;
    std::size_t end = 0;
};

/// @param plain_mask  whether the mask can be anything but 0 and -infinity (ALiBi): it is added then
[[nodiscard]] visible_cells look_at(const mask_rows& mask, bool plain_mask);

/// The cells that one query sees.
struct seen_by_one {
    std::size_t first = 0;
    std::size_t count = 0;
    /// Which, where they are not those from `first` on; room for all cells is taken once.
    std::span<const kvcrush::token_index> list{};
};
[[nodiscard]] seen_by_one
cells_of(const mask_rows& mask, std::size_t query, std::vector<kvcrush::token_index>& memory);

} // namespace kvcrush_ggml
