// SPDX-License-Identifier: Apache-2.0
/// @file
/// What q_filters_scorer needs of a model, learned from its queries. Needs Eigen, so that it is no part of kvcrush.hpp.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/math/principal_direction.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Finds the filters of one layer from queries that the model made.
///
///     q_filter_calibration calibration(num_q_heads, num_kv_heads, head_dim);
///     for each text:                                     // the authors take 20 texts of 2048 tokens
///         calibration.add(queries);                      // any number of them
///     const std::vector<float> filters = calibration.filters();
///
///     direction[h] = first right singular vector of the queries of head h (not centred)
///     direction[h] turned so that the queries project positively on it, on the mean
///     filter[k]    = -mean of direction[h] over the query heads of kv head k
/// @note Sums only are held: 8 * num_q_heads * head_dim * (head_dim + 1) bytes, whatever the number of queries. The
///       authors take 3000 random queries per head; here all that are added count.
class q_filter_calibration {
public:
    /// @throws std::invalid_argument if num_q_heads is not a multiple of num_kv_heads
    q_filter_calibration(std::size_t num_q_heads, std::size_t num_kv_heads, std::size_t head_dim)
        : num_q_heads_(num_q_heads), num_kv_heads_(num_kv_heads), head_dim_(head_dim) {
        detail::require(num_kv_heads > 0 && num_q_heads > 0 && num_q_heads % num_kv_heads == 0,
                        "q_filter_calibration: num_q_heads is ",
                        num_q_heads,
                        "; it must be a multiple of num_kv_heads (",
                        num_kv_heads,
                        ")");
        moments_.assign(num_q_heads * head_dim * head_dim, 0.0);
        sums_.assign(num_q_heads * head_dim, 0.0);
    }

    /// @param queries  [num_q_heads, any number, head_dim], after RoPE
    /// @throws std::invalid_argument if heads or channels are not those of the constructor
    void add(const query_view& queries) {
        detail::require(queries.num_q_heads() == num_q_heads_ && queries.head_dim() == head_dim_,
                        "q_filter_calibration: queries are of ",
                        queries.num_q_heads(),
                        " heads of ",
                        queries.head_dim(),
                        " channels; ",
                        num_q_heads_,
                        " of ",
                        head_dim_,
                        " were announced");
        for (std::size_t head = 0; head < num_q_heads_; ++head) {
            double* const sums = sums_.data() + head * head_dim_;
            double* const moments = moments_.data() + head * head_dim_ * head_dim_;
            for (std::size_t i = 0; i < queries.num_queries(); ++i) {
                const float* const query = queries.row(head, i);
                for (std::size_t a = 0; a < head_dim_; ++a) {
                    const auto x = static_cast<double>(query[a]);
                    sums[a] += x;
                    for (std::size_t b = 0; b <= a; ++b) {
                        moments[a * head_dim_ + b] += x * static_cast<double>(query[b]);
                    }
                }
            }
        }
    }

    /// @return [num_kv_heads, head_dim]; zeros for heads whose queries were all 0, or not all finite
    [[nodiscard]] std::vector<float> filters() const {
        const std::size_t group_size = num_q_heads_ / num_kv_heads_;
        std::vector<double> means(num_kv_heads_ * head_dim_, 0.0);
        const std::size_t size = head_dim_ * head_dim_;
        for (std::size_t head = 0; head < num_q_heads_; ++head) {
            const std::vector<double> direction = principal_direction(
                std::span<const double>(moments_).subspan(head * size, size), head_dim_);
            double projection = 0.0;
            for (std::size_t c = 0; c < head_dim_; ++c) {
                projection += direction[c] * sums_[head * head_dim_ + c];
            }
            const double sign = projection < 0.0 ? 1.0 : -1.0;
            double* const mean = means.data() + head / group_size * head_dim_;
            for (std::size_t c = 0; c < head_dim_; ++c) {
                mean[c] += sign * direction[c] / static_cast<double>(group_size);
            }
        }
        std::vector<float> filters(means.size());
        for (std::size_t i = 0; i < means.size(); ++i) {
            filters[i] = static_cast<float>(means[i]);
        }
        return filters;
    }

private:
    std::size_t num_q_heads_;
    std::size_t num_kv_heads_;
    std::size_t head_dim_;
    std::vector<double> moments_; ///< [num_q_heads, head_dim, head_dim], below and on the diagonal
    std::vector<double> sums_;    ///< [num_q_heads, head_dim]
};

} // namespace v0
} // namespace kvcrush
