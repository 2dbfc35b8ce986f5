// SPDX-License-Identifier: Apache-2.0
/// @file
/// The Walsh-Hadamard transform as a matrix, and codebook rows by comparing with every centroid, in double.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvcrush::reference {

/// S_after H S_before x / sqrt(block) for each block of each row; H[i][j] = (-1)^popcount(i & j).
[[nodiscard]] inline std::vector<double> hadamard(std::span<const float> rows,
                                                  std::size_t dim,
                                                  std::size_t block,
                                                  const std::uint64_t* before = nullptr,
                                                  const std::uint64_t* after = nullptr) {
    const auto sign = [](const std::uint64_t* signs, std::size_t channel) {
        return signs != nullptr && ((signs[channel / 64] >> (channel % 64)) & 1U) != 0 ? -1.0 : 1.0;
    };
    std::vector<double> out(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::size_t first = i / block * block;
        for (std::size_t j = 0; j < block; ++j) {
            const double entry = std::popcount((i - first) & j) % 2 == 0 ? 1.0 : -1.0;
            out[i] += entry * sign(before, (first + j) % dim) * double(rows[first + j]);
        }
        out[i] *= sign(after, i % dim) / std::sqrt(double(block));
    }
    return out;
}

/// A row as code indices and a norm, not rounded.
struct codebook_row {
    double norm = 0;
    std::vector<int> codes;
    std::vector<double> decoded;
};

/// @param positive  the positive centroids of N(0, 1), ascending
template <typename Value>
[[nodiscard]] codebook_row
encode_codebook_row(std::span<const Value> row, std::span<const float> positive, bool keep_norm) {
    std::vector<double> centroids;
    for (const float centroid : positive) {
        centroids.push_back(-double(centroid));
    }
    std::reverse(centroids.begin(), centroids.end());
    centroids.insert(centroids.end(), positive.begin(), positive.end());
    codebook_row out;
    double squares = 0;
    for (const Value value : row) {
        squares += double(value) * double(value);
    }
    out.norm = std::sqrt(squares);
    const double root = std::sqrt(double(row.size()));
    double chosen = 0;
    for (const Value value : row) {
        const double y = out.norm == 0 ? 0 : double(value) / out.norm * root;
        std::size_t best = 0;
        for (std::size_t k = 1; k < centroids.size(); ++k) {
            if (std::abs(y - centroids[k]) <= std::abs(y - centroids[best])) {
                best = k;
            }
        }
        out.codes.push_back(static_cast<int>(best));
        chosen += centroids[best] * centroids[best];
    }
    if (keep_norm) {
        out.norm /= std::sqrt(chosen / double(row.size()));
    }
    for (const int code : out.codes) {
        out.decoded.push_back(out.norm / root * centroids[static_cast<std::size_t>(code)]);
    }
    return out;
}

} // namespace kvcrush::reference
