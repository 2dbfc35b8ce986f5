// SPDX-License-Identifier: Apache-2.0
#include "baseline_blocks.hpp"

#include <algorithm>
#include <numeric>

namespace kvcrush::bench {
namespace {

struct larger_first {
    const double* scores;
    bool operator()(std::size_t a, std::size_t b) const noexcept { return scores[a] > scores[b]; }
};

struct candidate {
    std::size_t distance;
    std::size_t block;
};

struct nearer_first {
    bool operator()(const candidate& a, const candidate& b) const noexcept {
        return a.distance < b.distance;
    }
};

/// 1 for the better half of the tokens.
std::vector<std::size_t> make_indicators(const double* scores, std::size_t num_tokens) {
    std::vector<std::size_t> order(num_tokens);
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto half = order.begin() + static_cast<std::ptrdiff_t>(num_tokens / 2);
    std::partial_sort(order.begin(), half, order.end(), larger_first{scores});
    std::vector<std::size_t> indicators(num_tokens, 0);
    for (auto it = order.begin(); it != half; ++it) {
        indicators[*it] = 1;
    }
    return indicators;
}

/// 1 for each place in a block where more than half of the blocks have a 1.
std::vector<std::size_t> make_mean_anchor(const std::vector<std::size_t>& indicators,
                                          std::size_t block_size) {
    const std::size_t num_blocks = indicators.size() / block_size;
    std::vector<std::size_t> anchor(block_size, 0);
    for (std::size_t i = 0; i < block_size; ++i) {
        std::size_t sum = 0;
        for (std::size_t block = 0; block < num_blocks; ++block) {
            sum += indicators[block * block_size + i];
        }
        anchor[i] = static_cast<double>(sum) / static_cast<double>(num_blocks) > 0.5 ? 1 : 0;
    }
    return anchor;
}

} // namespace

std::vector<std::size_t> published_blocks::distances(const double* scores,
                                                     std::size_t num_tokens) const {
    const std::vector<std::size_t> indicators = make_indicators(scores, num_tokens);
    const std::vector<std::size_t> anchor = make_mean_anchor(indicators, block_size);
    std::vector<std::size_t> found(num_tokens / block_size, 0);
    for (std::size_t block = 0; block < found.size(); ++block) {
        for (std::size_t i = 0; i < block_size; ++i) {
            if (indicators[block * block_size + i] != anchor[i]) {
                ++found[block];
            }
        }
    }
    return found;
}

std::vector<std::size_t> published_blocks::retain(const double* scores,
                                                  std::size_t num_tokens,
                                                  const std::vector<std::size_t>& evicted,
                                                  std::size_t budget) const {
    const std::vector<std::size_t> all = distances(scores, num_tokens);
    std::vector<candidate> candidates;
    for (std::size_t block = 0; block < all.size(); ++block) {
        if (std::find(evicted.begin(), evicted.end(), block) != evicted.end()) {
            candidates.push_back({all[block], block});
        }
    }
    std::sort(candidates.begin(), candidates.end(), nearer_first{});

    std::vector<std::size_t> retained;
    const std::size_t picks = std::min(candidates.size(), budget);
    for (std::size_t i = 0; i < picks; ++i) {
        retained.push_back(candidates[i * (candidates.size() / picks)].block);
    }
    return retained;
}

} // namespace kvcrush::bench
