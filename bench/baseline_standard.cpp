// SPDX-License-Identifier: Apache-2.0
#include "baseline_standard.hpp"

#include <algorithm>

namespace kvcrush::bench {
namespace {

/// Of this file alone, as what it instantiates then is.
struct larger_first {
    bool operator()(float a, float b) const noexcept { return a > b; }
};

struct nearer_first {
    const std::uint8_t* distances;
    bool operator()(std::uint32_t a, std::uint32_t b) const noexcept {
        return distances[a] < distances[b];
    }
};

} // namespace

void nth_element_codes(const float* scores,
                       std::size_t num_heads,
                       std::size_t num_tokens,
                       float* thresholds,
                       float* row,
                       std::uint32_t* codes) {
    const std::size_t half = num_tokens / 2;
    for (std::size_t head = 0; head < num_heads; ++head) {
        std::copy_n(scores + head * num_tokens, num_tokens, row);
        std::nth_element(row, row + half - 1, row + num_tokens, larger_first{});
        thresholds[head] = row[half - 1];
    }
    for (std::size_t t = 0; t < num_tokens; ++t) {
        std::uint32_t code = 0;
        for (std::size_t head = 0; head < num_heads; ++head) {
            code |= (scores[head * num_tokens + t] >= thresholds[head] ? 1U : 0U) << head;
        }
        codes[t] = code;
    }
}

std::size_t stable_sort_order(const std::uint8_t* distances,
                              const std::uint64_t* taken,
                              std::size_t num_tokens,
                              std::uint32_t* order) {
    std::size_t count = 0;
    for (std::size_t t = 0; t < num_tokens; ++t) {
        if ((taken[t / 64] >> (t % 64) & 1U) == 0) {
            order[count++] = static_cast<std::uint32_t>(t);
        }
    }
    std::stable_sort(order, order + count, nearer_first{distances});
    return count;
}

} // namespace kvcrush::bench
