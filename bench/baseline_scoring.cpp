// SPDX-License-Identifier: Apache-2.0
#include "baseline_scoring.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace kvcrush::bench {
namespace {

/// Of this file alone, as what they instantiate then is.
struct scored {
    float score;
    std::uint32_t token;
};
struct better_first {
    bool operator()(const scored& a, const scored& b) const noexcept { return a.score > b.score; }
};
struct better_index_first {
    const float* scores;
    bool operator()(std::uint32_t a, std::uint32_t b) const noexcept {
        return scores[a] > scores[b];
    }
};

} // namespace

void exp_softmax_add(float* logits, std::size_t size, float* sums) {
    float largest = logits[0];
    for (std::size_t t = 1; t < size; ++t) {
        largest = logits[t] > largest ? logits[t] : largest;
    }
    float sum = 0.0F;
    for (std::size_t t = 0; t < size; ++t) {
        logits[t] = std::exp(logits[t] - largest);
        sum += logits[t];
    }
    for (std::size_t t = 0; t < size; ++t) {
        sums[t] += logits[t] / sum;
    }
}

void nth_element_top_k(
    const float* scores, std::size_t num_tokens, std::size_t k, void* pairs, std::uint32_t* out) {
    auto* const all = static_cast<scored*>(pairs);
    for (std::size_t t = 0; t < num_tokens; ++t) {
        all[t] = {scores[t], static_cast<std::uint32_t>(t)};
    }
    std::nth_element(all, all + k, all + num_tokens, better_first{});
    for (std::size_t i = 0; i < k; ++i) {
        out[i] = all[i].token;
    }
}

void partial_sort_top_k(const float* scores,
                        std::size_t num_tokens,
                        std::size_t k,
                        std::uint32_t* order,
                        std::uint32_t* out) {
    for (std::size_t t = 0; t < num_tokens; ++t) {
        order[t] = static_cast<std::uint32_t>(t);
    }
    std::partial_sort(order, order + k, order + num_tokens, better_index_first{scores});
    std::copy_n(order, k, out);
}

void copy_kept_rows(std::byte* rows,
                    std::size_t row_bytes,
                    const std::uint32_t* kept,
                    std::size_t num_kept) {
    for (std::size_t i = 0; i < num_kept; ++i) {
        if (kept[i] != i) {
            std::memcpy(rows + i * row_bytes, rows + kept[i] * row_bytes, row_bytes);
        }
    }
}

} // namespace kvcrush::bench
