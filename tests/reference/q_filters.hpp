// SPDX-License-Identifier: Apache-2.0
/// @file
/// Q-Filters by plain power iteration.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace kvcrush::reference {

/// First right singular vector of the rows, turned so that they project positively on it, negated.
/// @param queries  [samples][head_dim]
[[nodiscard]] inline std::vector<double> q_filter(const std::vector<std::vector<double>>& queries) {
    const std::size_t dim = queries[0].size();
    std::vector<double> v(dim);
    for (std::size_t c = 0; c < dim; ++c) {
        v[c] = 1.0 + 0.01 * static_cast<double>(c);
    }
    double projection = 0.0;
    for (int step = 0; step < 20000; ++step) {
        std::vector<double> next(dim, 0.0);
        projection = 0.0;
        for (const std::vector<double>& q : queries) {
            double dot = 0.0;
            for (std::size_t c = 0; c < dim; ++c) {
                dot += q[c] * v[c];
            }
            projection += dot;
            for (std::size_t c = 0; c < dim; ++c) {
                next[c] += dot * q[c];
            }
        }
        double length = 0.0;
        for (const double x : next) {
            length += x * x;
        }
        for (std::size_t c = 0; c < dim; ++c) {
            v[c] = next[c] / std::sqrt(length);
        }
    }
    for (double& x : v) {
        x = projection < 0.0 ? x : -x;
    }
    return v;
}

} // namespace kvcrush::reference
