// SPDX-License-Identifier: Apache-2.0
/// @file
/// What an engine adds to the logits of single rows, or hides from a query with.
#pragma once

#include <kvcrush/core/types.hpp>

#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// A number for each query and row of the cache, added to their logit in every head: 0 or a bias, -infinity for what the
/// query must not see. With a mask attend() is not causal by itself: the mask alone says what is seen.
///
/// One of the two spans holds [num_queries, stride]; with neither there is no mask.
struct attend_mask {
    std::span<const f16> halves{};
    std::span<const float> floats{};
    /// From one query to the next [elements]; 0 stands for the rows of the longest head.
    std::size_t stride = 0;
    /// Factor of the numbers in each query head, [num_q_heads], as ALiBi has them; empty for 1 throughout. What is
    /// -infinity hides whatever its factor.
    std::span<const float> slopes{};

    [[nodiscard]] constexpr bool empty() const noexcept { return halves.empty() && floats.empty(); }
    [[nodiscard]] constexpr std::size_t size() const noexcept {
        return halves.empty() ? floats.size() : halves.size();
    }
};

} // namespace v0
} // namespace kvcrush
