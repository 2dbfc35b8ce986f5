// SPDX-License-Identifier: Apache-2.0
/// @file
/// Chunk-wise selection with sorted lists, in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace kvcrush::reference {

/// Whether a comes before b in a list of the best: larger ones, NaN last.
inline bool comes_before(double a, double b) { return !std::isnan(a) && (std::isnan(b) || a > b); }

/// Indices of `scores`, best first; ties in order.
inline std::vector<std::size_t> ranked(const std::vector<double>& scores) {
    std::vector<std::size_t> order(scores.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
        order[i] = i;
    }
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return comes_before(scores[a], scores[b]);
    });
    return order;
}

/// Mean of the values that are numbers, rounded to float as scores are; NaN if there is none.
inline double mean_of_numbers(std::span<const double> values) {
    double sum = 0.0;
    double count = 0.0;
    for (const double value : values) {
        if (!std::isnan(value)) {
            sum += value;
            count += 1.0;
        }
    }
    return count == 0.0 ? std::numeric_limits<double>::quiet_NaN()
                        : static_cast<double>(static_cast<float>(sum / count));
}

/// Mean score of each chunk of `scores`.
inline std::vector<double> chunk_means(const std::vector<double>& scores, std::size_t chunk_size) {
    std::vector<double> means;
    for (std::size_t begin = 0; begin < scores.size(); begin += chunk_size) {
        const std::size_t length = std::min(chunk_size, scores.size() - begin);
        means.push_back(mean_of_numbers(std::span(scores).subspan(begin, length)));
    }
    return means;
}

/// The tokens that stay out of scores.size(): chunks in `order`, the last one cut to its best tokens.
inline std::vector<std::size_t> take_chunks(const std::vector<double>& scores,
                                            const std::vector<std::size_t>& order,
                                            std::size_t chunk_size,
                                            std::size_t budget) {
    std::vector<std::size_t> kept;
    for (const std::size_t chunk : order) {
        const std::size_t begin = chunk * chunk_size;
        const std::size_t length = std::min(chunk_size, scores.size() - begin);
        const std::vector<double> own(scores.begin() + static_cast<std::ptrdiff_t>(begin),
                                      scores.begin() + static_cast<std::ptrdiff_t>(begin + length));
        for (const std::size_t token : ranked(own)) {
            if (kept.size() < budget) {
                kept.push_back(begin + token);
            }
        }
    }
    std::sort(kept.begin(), kept.end());
    return kept;
}

} // namespace kvcrush::reference
