// SPDX-License-Identifier: Apache-2.0
/// @file
/// Keys on the side that queries point to, found out once per model.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/math/row_dot.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Scores a token by the projection of its key on the direction that the queries of its head share. Needs filters of
/// the model, and neither queries nor attention weights.
///
///     importance[k, j] = -filter[k] . key[k, j]
///
/// Filters point *away* from the queries, as in the files that the authors publish; q_filter_calibration (a header of its
/// own, which needs Eigen) gives such filters. With filters of the other sign the best tokens go first.
/// @note O(num_kv_heads * seq_len * head_dim)
/// @note Without filters of the right size every token scores 0.
/// @see  Q-Filters, arXiv:2503.02812. Deviation: the areas protect recent tokens (the authors keep the last 64).
struct q_filters_scorer {
    static constexpr std::string_view name = "q_filters";
    static constexpr std::string_view about = "keys on the side that the model's queries point to";
    static constexpr bool needs_attention = false;

    /// [num_kv_heads, head_dim] of the layer, row-major. The caller's memory: it must outlive the scorer.
    std::span<const float> filters = {};

    static constexpr auto parameters() { return parameter_list{}; }

    /// @throws std::invalid_argument if there are no filters
    void validate() const {
        detail::require(!filters.empty(),
                        "q_filters: there are no filters; calibrate them or load those of the "
                        "model");
    }
    /// @throws std::invalid_argument if the filters are those of another size
    void validate_for(const problem_size& size) const {
        const std::size_t needed = size.kv.num_kv_heads * size.kv.key_dim;
        detail::require(filters.size() == needed,
                        "q_filters: the filters hold ",
                        filters.size(),
                        " elements; ",
                        size.kv.num_kv_heads,
                        " kv heads of ",
                        size.kv.key_dim,
                        " channels need ",
                        needed);
    }

    /// @param[in]  kv      [num_kv_heads, seq_len, head_dim]
    /// @param[out] scores  [num_kv_heads, seq_len]
    template <KvSource Kv>
    void score(const Kv& kv, head_scores scores) const noexcept {
        const std::size_t dim = kv.shape().key_dim;
        if (filters.size() != scores.num_heads() * dim) {
            std::fill(scores.values().begin(), scores.values().end(), 0.0F);
            return;
        }
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const std::span<float> row = scores.row(head);
            dots([&](std::size_t token) { return kv.key(head, token); },
                 filters.subspan(head * dim, dim),
                 row);
            for (float& value : row) {
                value = -value;
            }
        }
    }
};

} // namespace v0
} // namespace kvcrush
