// SPDX-License-Identifier: Apache-2.0
/// @file
/// An observer that forgets nothing: every weight that any token ever received, in double.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvcrush::reference {

/// One head. Tokens carry the weights of all queries since they came.
class observed_attention {
public:
    /// Adds one query's weights for the tokens held and the new ones behind them.
    void add(std::span<const float> weights) {
        for (std::size_t t = 0; t < weights.size(); ++t) {
            if (t == tokens_.size()) {
                tokens_.emplace_back();
            }
            tokens_[t].push_back(static_cast<double>(weights[t]));
        }
    }

    void keep(std::span<const std::uint32_t> kept) {
        std::vector<std::vector<double>> left;
        for (const std::uint32_t token : kept) {
            left.push_back(tokens_[token]);
        }
        tokens_ = left;
    }

    [[nodiscard]] std::size_t length() const { return tokens_.size(); }
    [[nodiscard]] std::size_t reach(std::size_t token) const { return tokens_[token].size(); }

    /// The weights of those of the last `count` queries that saw the token.
    [[nodiscard]] std::vector<double> last(std::size_t token, std::size_t count) const {
        const std::vector<double>& all = tokens_[token];
        const std::size_t taken = std::min(count, all.size());
        return {all.end() - static_cast<std::ptrdiff_t>(taken), all.end()};
    }
    [[nodiscard]] std::vector<double> all(std::size_t token) const { return tokens_[token]; }

private:
    std::vector<std::vector<double>> tokens_;
};

inline double sum(const std::vector<double>& weights) {
    double total = 0.0;
    for (const double weight : weights) {
        total += weight;
    }
    return total;
}

inline double square_sum(const std::vector<double>& weights) {
    double total = 0.0;
    for (const double weight : weights) {
        total += weight * weight;
    }
    return total;
}

inline double mean(const std::vector<double>& weights) {
    return weights.empty() ? 0.0 : sum(weights) / static_cast<double>(weights.size());
}

inline double maximum(const std::vector<double>& weights) {
    double largest = 0.0;
    for (const double weight : weights) {
        largest = std::max(largest, weight);
    }
    return largest;
}

} // namespace kvcrush::reference
