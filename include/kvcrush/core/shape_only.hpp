// SPDX-License-Identifier: Apache-2.0
/// @file
/// A cache of which only the size is known.
#pragma once

#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/row_view.hpp>

#include <cstddef>

namespace kvcrush {
inline namespace v0 {

/// Stands for a cache where nobody reads keys or values: given scores, places in the text. Its rows are empty.
///
///     crush.set_scorer({scores});
///     const selection& kept = crush.select(shape_only{size.kv});
/// A compressor whose scorer or selector reads keys does not compile with it.
struct shape_only {
    kv_shape extents;

    [[nodiscard]] constexpr kv_shape shape() const noexcept { return extents; }
    [[nodiscard]] constexpr row_view<const float> key(std::size_t, std::size_t) const noexcept {
        return {nullptr, 0};
    }
    [[nodiscard]] constexpr row_view<const float> value(std::size_t, std::size_t) const noexcept {
        return {nullptr, 0};
    }
};
static_assert(KvSource<shape_only> && !MutableKvSource<shape_only>);

} // namespace v0
} // namespace kvcrush
