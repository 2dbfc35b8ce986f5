// SPDX-License-Identifier: Apache-2.0
/// @file
/// Keeps what belongs to tokens beside their rows in step with the rows.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Moves what belongs to the kept tokens to the front: positions, accumulated scores, anything with one value per
/// token of one head.
/// @param kept  ascending, each below values.size()
template <typename T>
void compact_values(std::span<T> values, std::span<const token_index> kept) noexcept {
    for (std::size_t i = 0; i < kept.size(); ++i) {
        KVCRUSH_ASSERT(kept[i] < values.size() && kept[i] >= i);
        values[i] = values[kept[i]];
    }
}

} // namespace v0
} // namespace kvcrush
