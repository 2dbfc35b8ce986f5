// SPDX-License-Identifier: Apache-2.0
/// @file
/// Hamming distances, bit by bit.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace kvcrush::reference {

/// The distance of `query` to each row of `codes`, rows of query.size() units, not saturated.
template <typename Code>
std::vector<unsigned>
hamming_many(std::span<const Code> query, std::span<const Code> codes, std::size_t num_codes) {
    std::vector<unsigned> distances(num_codes, 0);
    for (std::size_t i = 0; i < num_codes; ++i) {
        for (std::size_t w = 0; w < query.size(); ++w) {
            for (std::size_t bit = 0; bit < 8 * sizeof(Code); ++bit) {
                const bool left = ((query[w] >> bit) & 1U) != 0;
                const bool right = ((codes[i * query.size() + w] >> bit) & 1U) != 0;
                distances[i] += left != right ? 1U : 0U;
            }
        }
    }
    return distances;
}

} // namespace kvcrush::reference
