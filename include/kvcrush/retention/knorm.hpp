// SPDX-License-Identifier: Apache-2.0
/// @file
/// Keys with a small norm attract attention.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/math/row_norm.hpp>
#include <kvcrush/simd/norm.hpp>

#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Scores a token by minus the L2 norm of its key. Needs neither queries nor attention weights.
///
///     importance[k, j] = -||key[k, j]||
/// @note O(num_kv_heads * seq_len * head_dim). On the reference model it is worse than random rows for text at keep
///       ratios of 0.5 and 0.25: measure before you choose it.
/// @see  arXiv:2406.11430. Deviation: sinks and recent tokens are protected by the areas; layers are not skipped (the
///       paper leaves the first two alone: call it for the others only).
struct knorm_scorer {
    static constexpr std::string_view name = "knorm";
    static constexpr std::string_view about = "keys with a small norm";
    static constexpr bool needs_attention = false;

    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}

    /// @param[in]  kv      [num_kv_heads, seq_len, head_dim]
    /// @param[out] scores  [num_kv_heads, seq_len]
    template <KvSource Kv>
    void score(const Kv& kv, head_scores scores) const noexcept {
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const std::span<float> row = scores.row(head);
            squared_norms([&](std::size_t token) { return kv.key(head, token); }, row);
            simd::scale_roots(row, -1.0F);
        }
    }
};

} // namespace v0
} // namespace kvcrush
