// SPDX-License-Identifier: Apache-2.0
/// @file
/// Attention, softmax and pooling in double, one obvious loop each.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <utility>
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

/// The rows of one kv head, as floats.
struct rows_of_head {
    std::vector<float> keys;   ///< [count, key_dim]
    std::vector<float> values; ///< [count, value_dim]
    std::size_t count = 0;
};

/// What attention over rows gives, per query head and query.
struct attention_result {
    std::vector<double> output;      ///< [num_q_heads, num_queries, value_dim]
    std::vector<double> magnitude;   ///< sum of weight * |value|, likewise
    std::vector<double> log_sum_exp; ///< [num_q_heads, num_queries]
    std::vector<std::vector<double>>
        weights; ///< [num_q_heads * num_queries], one per row of the kv head
};

/// What may be done to logits, and who takes part in the softmax without a row.
struct logit_shaping {
    double soft_cap = 0.0;
    /// [num_queries][rows], added; -infinity hides. Empty: causal.
    std::vector<std::vector<double>> mask{};
    std::vector<double> slopes{}; ///< [num_q_heads], empty for 1
    std::vector<double> sinks{};  ///< [num_q_heads], empty for none
};

/// Softmax attention over rows that differ in number from kv head to kv head. The queries are the last tokens: query i of
/// n sees all rows but the last n - 1 - i.
/// @param queries  [num_q_heads, num_queries, key_dim]
inline attention_result attention_over_rows(std::span<const float> queries,
                                            std::span<const rows_of_head> heads,
                                            std::size_t num_q_heads,
                                            std::size_t num_queries,
                                            std::size_t key_dim,
                                            std::size_t value_dim,
                                            double scale,
                                            const logit_shaping& shaping = {}) {
    constexpr double hidden_logit = -std::numeric_limits<double>::infinity();
    attention_result result;
    for (std::size_t h = 0; h < num_q_heads; ++h) {
        const rows_of_head& rows = heads[h / (num_q_heads / heads.size())];
        for (std::size_t i = 0; i < num_queries; ++i) {
            const std::size_t hidden = shaping.mask.empty() ? num_queries - 1 - i : 0;
            const std::size_t seen = rows.count > hidden ? rows.count - hidden : 0;
            const auto query = queries.subspan((h * num_queries + i) * key_dim, key_dim);
            std::vector<double> logits;
            for (std::size_t t = 0; t < seen; ++t) {
                double logit =
                    scale * dot(query, std::span(rows.keys).subspan(t * key_dim, key_dim));
                if (shaping.soft_cap > 0.0) {
                    logit = shaping.soft_cap * std::tanh(logit / shaping.soft_cap);
                }
                if (!shaping.mask.empty()) {
                    const double added = shaping.mask[i][t];
                    logit = added == hidden_logit    ? hidden_logit
                            : shaping.slopes.empty() ? logit + added
                                                     : logit + shaping.slopes[h] * added;
                }
                logits.push_back(logit);
            }
            if (!shaping.sinks.empty()) {
                logits.push_back(shaping.sinks[h]);
            }
            std::vector<double> weights = softmax(logits);
            const double high =
                logits.empty() ? 0.0 : *std::max_element(logits.begin(), logits.end());
            double sum = 0.0;
            for (const double logit : logits) {
                sum += logit == hidden_logit ? 0.0 : std::exp(logit - high);
            }
            result.log_sum_exp.push_back(sum == 0.0 ? hidden_logit : high + std::log(sum));
            weights.resize(rows.count, 0.0); // a sink's goes nowhere
            if (!shaping.sinks.empty()) {
                std::fill(weights.begin() + static_cast<std::ptrdiff_t>(seen), weights.end(), 0.0);
            }
            for (std::size_t c = 0; c < value_dim; ++c) {
                double output = 0.0;
                double magnitude = 0.0;
                for (std::size_t t = 0; t < seen; ++t) {
                    const double term =
                        weights[t] * static_cast<double>(rows.values[t * value_dim + c]);
                    output += term;
                    magnitude += std::abs(term);
                }
                result.output.push_back(output);
                result.magnitude.push_back(magnitude);
            }
            result.weights.push_back(std::move(weights));
        }
    }
    return result;
}

} // namespace kvcrush::reference
