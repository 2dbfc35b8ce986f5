// SPDX-License-Identifier: Apache-2.0
/// @file
/// Attention, softmax and pooling in double, one obvious loop each.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace kvcrush::reference {

/// Softmax of one row. NaN logits weigh 0; without a finite logit, or with +inf among them, all
/// weights are 0.
inline std::vector<double> softmax(std::span<const double> logits) {
    double largest = -std::numeric_limits<double>::infinity();
    for (const double logit : logits) {
        if (!std::isnan(logit)) {
            largest = std::max(largest, logit);
        }
    }
    std::vector<double> weights(logits.size(), 0.0);
    if (!std::isfinite(largest)) {
        return weights;
    }
    double sum = 0.0;
    for (std::size_t t = 0; t < logits.size(); ++t) {
        weights[t] = std::isnan(logits[t]) ? 0.0 : std::exp(logits[t] - largest);
        sum += weights[t];
    }
    for (double& weight : weights) {
        weight /= sum;
    }
    return weights;
}

/// Sum of |a| |b|: what rounding errors of a dot product are measured by.
inline double dot_of_magnitudes(std::span<const float> a, std::span<const float> b) {
    double sum = 0.0;
    for (std::size_t k = 0; k < a.size(); ++k) {
        sum += std::abs(static_cast<double>(a[k]) * static_cast<double>(b[k]));
    }
    return sum;
}

inline double dot(std::span<const float> a, std::span<const float> b) {
    double sum = 0.0;
    for (std::size_t k = 0; k < a.size(); ++k) {
        sum += static_cast<double>(a[k]) * static_cast<double>(b[k]);
    }
    return sum;
}

/// Sums over the queries of causal attention, [num_q_heads, seq_len]; query i is token seq_len -
/// num_queries + i.
/// @param queries  [num_q_heads, num_queries, head_dim]
/// @param keys     [num_kv_heads, seq_len, head_dim]
inline std::vector<double> attention_mass(std::span<const float> queries,
                                          std::span<const float> keys,
                                          std::size_t num_q_heads,
                                          std::size_t num_kv_heads,
                                          std::size_t num_queries,
                                          std::size_t seq_len,
                                          std::size_t head_dim,
                                          double scale) {
    std::vector<double> mass(num_q_heads * seq_len, 0.0);
    for (std::size_t head = 0; head < num_q_heads; ++head) {
        const std::size_t kv_head = head / (num_q_heads / num_kv_heads);
        for (std::size_t i = 0; i < num_queries; ++i) {
            const auto query = queries.subspan((head * num_queries + i) * head_dim, head_dim);
            std::vector<double> logits;
            for (std::size_t j = 0; j <= seq_len - num_queries + i; ++j) {
                logits.push_back(
                    scale * dot(query, keys.subspan((kv_head * seq_len + j) * head_dim, head_dim)));
            }
            const std::vector<double> weights = softmax(logits);
            for (std::size_t j = 0; j < weights.size(); ++j) {
                mass[head * seq_len + j] += weights[j];
            }
        }
    }
    return mass;
}

/// The largest value within kernel / 2, NaN counting as -inf.
inline std::vector<float> max_pool(std::span<const float> in, std::size_t kernel) {
    std::vector<float> out(in.size(), -std::numeric_limits<float>::infinity());
    for (std::size_t i = 0; i < in.size(); ++i) {
        for (std::size_t j = 0; j < in.size(); ++j) {
            if ((i > j ? i - j : j - i) <= kernel / 2 && in[j] > out[i]) {
                out[i] = in[j];
            }
        }
    }
    return out;
}

/// The sum within kernel / 2, divided by kernel.
inline std::vector<double> avg_pool(std::span<const float> in, std::size_t kernel) {
    std::vector<double> out(in.size(), 0.0);
    for (std::size_t i = 0; i < in.size(); ++i) {
        for (std::size_t j = 0; j < in.size(); ++j) {
            if ((i > j ? i - j : j - i) <= kernel / 2) {
                out[i] += static_cast<double>(in[j]);
            }
        }
        out[i] /= static_cast<double>(kernel);
    }
    return out;
}

} // namespace kvcrush::reference
