// SPDX-License-Identifier: Apache-2.0
/// @file
/// R-KV in double, with the full matrix of cosines.
#pragma once

#include "attention_layer.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace kvcrush::reference {

struct r_kv {
    double lambda = 0.1;
    std::size_t window = 8;
    std::size_t kernel = 7;
    double threshold = 0.5;
    std::size_t num_forgiven = 1;
    std::size_t search = 2048;
    bool published = false;

    /// Cosines of all pairs, 0 on the diagonal.
    [[nodiscard]] static std::vector<std::vector<double>> cosines(const attention_layer& layer,
                                                                  std::size_t kv_head) {
        const std::size_t n = layer.seq_len;
        std::vector<std::vector<double>> matrix(n, std::vector<double>(n, 0.0));
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t j = 0; j < n; ++j) {
                const auto a = layer.key(kv_head, i);
                const auto b = layer.key(kv_head, j);
                if (i != j) {
                    matrix[i][j] =
                        dot(a, b) / ((std::sqrt(dot(a, a)) + 1e-8) * (std::sqrt(dot(b, b)) + 1e-8));
                }
            }
        }
        return matrix;
    }

    /// How close a cosine comes to the threshold: below the rounding error of a float another key may be forgiven.
    [[nodiscard]] double margin(const attention_layer& layer) const {
        double least = 1.0;
        for (std::size_t k = 0; k < layer.num_kv_heads; ++k) {
            for (const std::vector<double>& row : cosines(layer, k)) {
                for (const double value : row) {
                    least = std::min(least, std::abs(value - threshold));
                }
            }
        }
        return least;
    }

    /// Mean cosine of each key with the others, without what is forgiven.
    [[nodiscard]] std::vector<double> likeness(const attention_layer& layer,
                                               std::size_t kv_head) const {
        const std::size_t n = layer.seq_len;
        std::vector<std::vector<double>> matrix = cosines(layer, kv_head);
        for (std::size_t i = 0; i < n; ++i) {
            std::vector<double>& row = matrix[i];
            std::size_t found = 0;
            for (std::size_t back = 0; back < std::min(search, n) && found < num_forgiven; ++back) {
                const std::size_t j = n - 1 - back;
                if (j != i && row[j] > threshold) {
                    row[j] = 0.0;
                    ++found;
                }
            }
            if (found == 0 && published) {
                row[0] = 0.0;
            }
        }
        std::vector<double> means(n, 0.0);
        for (const std::vector<double>& row : matrix) {
            for (std::size_t j = 0; j < n; ++j) {
                means[j] += row[j] / static_cast<double>(n);
            }
        }
        return means;
    }

    [[nodiscard]] std::vector<double> importance(const attention_layer& layer,
                                                 std::size_t kv_head) const {
        const std::size_t n = layer.seq_len;
        const std::size_t asking = std::min(window, n);
        std::vector<double> mass(n - asking, 0.0);
        for (std::size_t i = n - asking; i < n; ++i) {
            std::vector<double> logits(n - asking, -std::numeric_limits<double>::infinity());
            for (std::size_t g = 0; g < layer.group_size; ++g) {
                for (std::size_t j = 0; j < logits.size(); ++j) {
                    logits[j] =
                        std::max(logits[j], layer.logit(kv_head * layer.group_size + g, i, j));
                }
            }
            const std::vector<double> weights = softmax(logits);
            for (std::size_t j = 0; j < weights.size(); ++j) {
                mass[j] += weights[j] / static_cast<double>(asking);
            }
        }
        std::vector<double> pooled(mass.size(), 0.0);
        for (std::size_t i = 0; i < mass.size(); ++i) {
            for (std::size_t j = 0; j < mass.size(); ++j) {
                if ((i > j ? i - j : j - i) <= kernel / 2) {
                    pooled[i] = std::max(pooled[i], mass[j]);
                }
            }
        }
        return pooled;
    }

    /// [num_kv_heads, seq_len]
    [[nodiscard]] std::vector<double> scores(const attention_layer& layer) const {
        const std::size_t n = layer.seq_len;
        std::vector<double> all;
        for (std::size_t k = 0; k < layer.num_kv_heads; ++k) {
            const std::vector<double> redundancy = softmax(likeness(layer, k));
            std::vector<double> row = importance(layer, k);
            for (std::size_t j = 0; j < row.size(); ++j) {
                row[j] = lambda * row[j] - (1.0 - lambda) * redundancy[j];
            }
            row.resize(n, row.empty() ? 0.0 : *std::max_element(row.begin(), row.end()));
            all.insert(all.end(), row.begin(), row.end());
        }
        return all;
    }
};

} // namespace kvcrush::reference
