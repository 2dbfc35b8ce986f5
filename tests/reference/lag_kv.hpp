// SPDX-License-Identifier: Apache-2.0
/// @file
/// LagKV in double, one obvious loop each.
#pragma once

#include "attention.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace kvcrush::reference {

using rows = std::vector<std::vector<double>>;

/// Unbiased standard deviation over the channels of each row, scaled to the ranges of the reference.
[[nodiscard]] inline std::vector<double>
lag_deviations(const rows& target, const rows& behind, double epsilon) {
    std::vector<double> out;
    for (const std::vector<double>& row : target) {
        std::vector<double> z;
        double mean = 0.0;
        for (std::size_t c = 0; c < row.size(); ++c) {
            double low = behind[0][c];
            double high = behind[0][c];
            for (const std::vector<double>& other : behind) {
                low = std::min(low, other[c]);
                high = std::max(high, other[c]);
            }
            z.push_back((row[c] - low) / std::max(high - low, epsilon));
            mean += z.back() / static_cast<double>(row.size());
        }
        double squares = 0.0;
        for (const double x : z) {
            squares += (x - mean) * (x - mean);
        }
        out.push_back(
            row.size() < 2 ? 0.0 : std::sqrt(squares / (static_cast<double>(row.size()) - 1.0)));
    }
    return out;
}

/// Scores that compare tokens of different partitions (cross scoring).
/// @param keys, values  [tokens][channels], finite
[[nodiscard]] inline std::vector<double>
lag_kv(const rows& keys, const rows& values, std::size_t sinks, std::size_t lag, double epsilon) {
    const std::size_t n = keys.size();
    std::vector<double> scores(n, 1.0);
    if (n < sinks + 2 * lag) {
        for (std::size_t t = sinks; t < n; ++t) {
            scores[t] = static_cast<double>(t - sinks) / static_cast<double>(n - sinks);
        }
        return scores;
    }
    for (std::size_t first = sinks; first + 2 * lag <= n; first += lag) {
        const auto part = [&](const rows& all, std::size_t begin) {
            return rows(all.begin() + static_cast<std::ptrdiff_t>(begin),
                        all.begin() + static_cast<std::ptrdiff_t>(begin + lag));
        };
        const std::vector<double> k =
            softmax(lag_deviations(part(keys, first), part(keys, first + lag), epsilon));
        const std::vector<double> v =
            softmax(lag_deviations(part(values, first), part(values, first + lag), epsilon));
        for (std::size_t t = 0; t < lag; ++t) {
            scores[first + t] = (k[t] + v[t]) / 2.0;
        }
    }
    return scores;
}

} // namespace kvcrush::reference
