// SPDX-License-Identifier: Apache-2.0
/// @file
/// Softmax attention over some of the rows, in a form in which parts can be put together exactly.
#pragma once

#include <kvcrush/config.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// For each query row: the largest logit, the sum of e^(logit - largest), and the values weighted alike.
struct partial_attention {
    std::span<float> largest; ///< [num_queries], -infinity where nothing was seen
    std::span<float> sum;     ///< [num_queries]
    std::span<float> values;  ///< [num_queries, value_dim]

    [[nodiscard]] static constexpr std::size_t size(std::size_t num_queries,
                                                    std::size_t value_dim) noexcept {
        return num_queries * (2 + value_dim);
    }
    /// @param memory  size(num_queries, value_dim) floats
    partial_attention(std::span<float> memory, std::size_t num_queries) noexcept
        : largest(memory.first(num_queries)),
          sum(memory.subspan(num_queries, num_queries)),
          values(memory.subspan(2 * num_queries)) {}

    /// Nothing seen yet.
    void clear() const noexcept {
        std::fill(largest.begin(), largest.end(), -std::numeric_limits<float>::infinity());
        std::fill(sum.begin(), sum.end(), 0.0F);
        std::fill(values.begin(), values.end(), 0.0F);
    }

    [[nodiscard]] std::size_t value_dim() const noexcept {
        return largest.empty() ? 0 : values.size() / largest.size();
    }

    /// Adds what another part of the rows contributed.
    void merge(const partial_attention& other) const noexcept {
        KVCRUSH_ASSERT(other.largest.size() == largest.size() &&
                       other.values.size() == values.size());
        const std::size_t dim = value_dim();
        for (std::size_t q = 0; q < largest.size(); ++q) {
            if (other.sum[q] == 0.0F) {
                continue;
            }
            const float high = (std::max)(largest[q], other.largest[q]);
            const float mine = std::exp(largest[q] - high);
            const float theirs = std::exp(other.largest[q] - high);
            largest[q] = high;
            sum[q] = sum[q] * mine + other.sum[q] * theirs;
            for (std::size_t c = q * dim; c < (q + 1) * dim; ++c) {
                values[c] = values[c] * mine + other.values[c] * theirs;
            }
        }
    }

    /// Adds e^logit to the sum of one query, for what has weight but no value. What is not finite adds nothing.
    void add_mass(std::size_t query, float logit) const noexcept {
        if (!(logit >= std::numeric_limits<float>::lowest() &&
              logit <= (std::numeric_limits<float>::max)())) {
            return;
        }
        const float high = (std::max)(largest[query], logit);
        const float mine = std::exp(largest[query] - high);
        largest[query] = high;
        sum[query] = sum[query] * mine + std::exp(logit - high);
        const std::size_t dim = value_dim();
        for (std::size_t c = query * dim; c < (query + 1) * dim; ++c) {
            values[c] *= mine;
        }
    }

    /// Logarithm of the sum of e^logit over all rows seen; -infinity for none.
    [[nodiscard]] float log_sum_exp(std::size_t query) const noexcept {
        return sum[query] == 0.0F ? -std::numeric_limits<float>::infinity()
                                  : largest[query] + std::log(sum[query]);
    }

    /// The attention's output of one query row; zeros where nothing was seen.
    /// @param[out] out  value_dim() floats, `stride` apart
    void output(std::size_t query, std::span<float> out, std::size_t stride = 1) const noexcept {
        const std::size_t dim = value_dim();
        KVCRUSH_ASSERT(dim == 0 || out.size() > (dim - 1) * stride);
        const float* const from = values.data() + query * dim;
        const float factor = sum[query] == 0.0F ? 0.0F : 1.0F / sum[query];
        for (std::size_t c = 0; c < dim; ++c) {
            out[c * stride] = factor * from[c];
        }
    }
};

} // namespace v0
} // namespace kvcrush
