// SPDX-License-Identifier: Apache-2.0
/// @file
/// KVCrush, token level, written to be read: sorts instead of counting, vectors of bool instead of codes.
#pragma once

#include <kvcrush/core/random.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

namespace kvcrush::reference {

using index_list = std::vector<std::uint32_t>;

/// True where a should stay rather than b, whatever the index: NaN is lowest.
[[nodiscard]] inline bool higher(double a, double b) {
    return std::isnan(b) ? !std::isnan(a) : a > b;
}

/// Indices of the k best of the given candidates, best first; ties keep the earlier one.
[[nodiscard]] inline index_list
best(const std::vector<double>& scores, index_list candidates, std::size_t k) {
    std::stable_sort(candidates.begin(), candidates.end(), [&](std::uint32_t a, std::uint32_t b) {
        return higher(scores[a], scores[b]);
    });
    candidates.resize(std::min(k, candidates.size()));
    return candidates;
}

[[nodiscard]] inline index_list all_of(std::size_t count) {
    index_list list(count);
    std::iota(list.begin(), list.end(), 0U);
    return list;
}

struct kvcrush_settings {
    double share = 0.25;
    double quantile = 0.5;
    std::string anchor = "zeros";
    std::string pick = "linspace";
    std::uint64_t seed = 0;
    std::size_t num_anchors = 1;
    bool farthest_first = false;
    bool adaptive = false;
};

using bit_rows = std::vector<std::vector<bool>>;

/// [tokens][heads]
[[nodiscard]] inline bit_rows signatures(const std::vector<std::vector<double>>& heads,
                                         double quantile) {
    const std::size_t tokens = heads.empty() ? 0 : heads.front().size();
    bit_rows bits(tokens, std::vector<bool>(heads.size(), false));
    for (std::size_t h = 0; h < heads.size(); ++h) {
        const auto ones = static_cast<std::size_t>(quantile * static_cast<double>(tokens));
        for (const std::uint32_t t : best(heads[h], all_of(tokens), ones)) {
            bits[t][h] = true;
        }
    }
    return bits;
}

[[nodiscard]] inline std::vector<bool>
anchor_of(const bit_rows& bits, std::size_t num_bits, const kvcrush_settings& settings) {
    std::vector<bool> anchor(num_bits, false);
    for (std::size_t b = 0; b < num_bits; ++b) {
        const auto set = static_cast<std::size_t>(std::count_if(
            bits.begin(), bits.end(), [b](const std::vector<bool>& code) { return code[b]; }));
        if (settings.anchor == "ones") {
            anchor[b] = true;
        } else if (settings.anchor == "alternate") {
            anchor[b] = b % 2 == 1;
        } else if (settings.anchor == "random") {
            anchor[b] = (random_bits(settings.seed, 0, b) & 1U) != 0;
        } else if (settings.anchor == "mean") {
            anchor[b] = 2 * set > bits.size();
        } else if (settings.anchor == "inverse_mean") {
            anchor[b] = 2 * set < bits.size();
        }
    }
    return anchor;
}

/// Anchor i of several.
[[nodiscard]] inline std::vector<bool>
further_anchor(const std::vector<bool>& first, std::size_t i, const kvcrush_settings& settings) {
    std::vector<bool> anchor(first.size());
    for (std::size_t b = 0; b < first.size(); ++b) {
        anchor[b] = i == 1 && settings.anchor != "random"
                        ? !first[b]
                        : (random_bits(settings.seed, i, b) & 1U) != 0;
    }
    return anchor;
}

[[nodiscard]] inline std::size_t hamming(const std::vector<bool>& a, const std::vector<bool>& b) {
    std::size_t distance = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        distance += a[i] != b[i] ? 1U : 0U;
    }
    return distance;
}

[[nodiscard]] inline index_list representatives(const index_list& order,
                                                const std::vector<double>& scores,
                                                std::size_t picks,
                                                const std::string& pick) {
    index_list chosen;
    const std::size_t m = order.size();
    for (std::size_t i = 0; i < picks; ++i) {
        if (pick == "linspace") {
            chosen.push_back(order[picks == 1 ? 0 : i * (m - 1) / (picks - 1)]);
        } else if (pick == "step") {
            chosen.push_back(order[i * (m / picks)]);
        } else if (pick == "farthest") {
            chosen.push_back(order[i]);
        } else {
            const index_list stratum(order.begin() + static_cast<std::ptrdiff_t>(i * m / picks),
                                     order.begin() +
                                         static_cast<std::ptrdiff_t>((i + 1) * m / picks));
            chosen.push_back(best(scores, stratum, 1).front());
        }
    }
    return chosen;
}

/// Shares of `picks` in proportion to `sizes`, by largest remainder, the earlier one on ties.
[[nodiscard]] inline std::vector<std::size_t>
largest_remainder(const std::vector<std::size_t>& sizes, std::size_t picks) {
    const std::size_t all = std::accumulate(sizes.begin(), sizes.end(), std::size_t{0});
    std::vector<std::size_t> shares(sizes.size(), 0);
    index_list by_remainder = all_of(sizes.size());
    if (all == 0) {
        return shares;
    }
    std::size_t left = picks;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        shares[i] = sizes[i] * picks / all;
        left -= shares[i];
    }
    std::stable_sort(
        by_remainder.begin(), by_remainder.end(), [&](std::uint32_t a, std::uint32_t b) {
            return sizes[a] * picks % all > sizes[b] * picks % all;
        });
    for (std::size_t i = 0; i < left; ++i) {
        ++shares[by_remainder[i]];
    }
    return shares;
}

[[nodiscard]] inline double negligible_part(const std::vector<double>& scores) {
    std::vector<double> finite;
    for (const double score : scores) {
        if (std::isfinite(score)) {
            finite.push_back(score);
        }
    }
    if (finite.empty()) {
        return 0.0;
    }
    const double mean =
        std::accumulate(finite.begin(), finite.end(), 0.0) / static_cast<double>(finite.size());
    double part = 0.0;
    for (const double factor : {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1}) {
        part = static_cast<double>(std::count_if(
                   finite.begin(), finite.end(), [&](double x) { return x < factor * mean; })) /
               static_cast<double>(finite.size());
        if (part >= 0.25) {
            break;
        }
    }
    return part;
}

/// Kept tokens of one kv head.
/// @param heads   what each head thinks of each token of the sequence
/// @param scores  of the kv head, for each token of the sequence
[[nodiscard]] inline index_list kvcrush(const std::vector<std::vector<double>>& heads,
                                        const std::vector<double>& scores,
                                        std::size_t sinks,
                                        std::size_t recent,
                                        std::size_t budget,
                                        const kvcrush_settings& settings) {
    const std::size_t length = scores.size();
    const std::size_t begin = std::min(sinks, length);
    const std::size_t end = length - std::min(recent, length - begin);
    const auto cut = [&](const std::vector<double>& row) {
        return std::vector<double>(row.begin() + static_cast<std::ptrdiff_t>(begin),
                                   row.begin() + static_cast<std::ptrdiff_t>(end));
    };
    std::vector<std::vector<double>> middle_heads;
    for (const std::vector<double>& row : heads) {
        middle_heads.push_back(cut(row));
    }
    const std::vector<double> middle = cut(scores);
    const std::size_t protected_tokens = length - middle.size();
    const std::size_t middle_budget =
        budget <= protected_tokens ? 0 : std::min(budget - protected_tokens, middle.size());
    const double share =
        settings.adaptive ? std::min(settings.share, negligible_part(middle)) : settings.share;
    const auto picks = static_cast<std::size_t>(share * static_cast<double>(middle_budget));

    const bit_rows bits = signatures(middle_heads, settings.quantile);
    std::vector<std::vector<bool>> anchors{anchor_of(bits, heads.size(), settings)};
    for (std::size_t i = 1; i < settings.num_anchors; ++i) {
        anchors.push_back(further_anchor(anchors.front(), i, settings));
    }
    std::vector<std::size_t> nearest(middle.size(), 0);
    std::vector<std::size_t> distances(middle.size(), 0);
    for (std::size_t t = 0; t < middle.size(); ++t) {
        distances[t] = hamming(bits[t], anchors.front());
        for (std::size_t i = 1; i < anchors.size(); ++i) {
            if (hamming(bits[t], anchors[i]) < distances[t]) {
                nearest[t] = i;
                distances[t] = hamming(bits[t], anchors[i]);
            }
        }
    }
    index_list chosen = best(middle, all_of(middle.size()), middle_budget - picks);
    std::vector<index_list> groups(anchors.size());
    for (const std::uint32_t t : all_of(middle.size())) {
        if (std::find(chosen.begin(), chosen.end(), t) == chosen.end()) {
            groups[nearest[t]].push_back(t);
        }
    }
    std::vector<std::size_t> sizes;
    for (index_list& group : groups) {
        const bool farthest_first = settings.farthest_first || settings.pick == "farthest";
        std::stable_sort(group.begin(), group.end(), [&](std::uint32_t a, std::uint32_t b) {
            return farthest_first ? distances[a] > distances[b] : distances[a] < distances[b];
        });
        sizes.push_back(group.size());
    }
    const std::vector<std::size_t> shares = largest_remainder(sizes, picks);
    for (std::size_t i = 0; i < groups.size(); ++i) {
        for (const std::uint32_t t : representatives(groups[i], middle, shares[i], settings.pick)) {
            chosen.push_back(t);
        }
    }

    index_list kept;
    for (std::size_t t = 0; t < begin; ++t) {
        kept.push_back(static_cast<std::uint32_t>(t));
    }
    for (const std::uint32_t t : chosen) {
        kept.push_back(t + static_cast<std::uint32_t>(begin));
    }
    for (std::size_t t = end; t < length; ++t) {
        kept.push_back(static_cast<std::uint32_t>(t));
    }
    std::sort(kept.begin(), kept.end());
    return kept;
}

} // namespace kvcrush::reference
