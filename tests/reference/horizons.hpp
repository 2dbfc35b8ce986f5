// SPDX-License-Identifier: Apache-2.0
/// @file
/// Shares of a budget for several ranked lists: all lists are read deeper together until enough different tokens are
/// found.
#pragma once

#include <cstddef>
#include <set>
#include <utility>
#include <vector>

namespace kvcrush::reference {

/// A judge's tokens, the best first, and its share.
struct judged_list {
    std::vector<std::size_t> best_first;
    double share;
};

/// The `count` first tokens: token number r of a list comes at (r + 1) / share, the smaller token first where two come at
/// once.
inline std::set<std::size_t> read_together(const std::vector<judged_list>& lists,
                                           std::size_t count) {
    std::set<std::pair<double, std::size_t>> events;
    for (const judged_list& list : lists) {
        for (std::size_t r = 0; r < list.best_first.size() && list.share > 0.0; ++r) {
            // As exact as the library is.
            const auto at = static_cast<float>((static_cast<double>(r) + 1.0) / list.share);
            events.emplace(static_cast<double>(at), list.best_first[r]);
        }
    }
    std::set<std::size_t> kept;
    for (const auto& [at, token] : events) {
        if (kept.size() == count) {
            break;
        }
        kept.insert(token);
    }
    return kept;
}

} // namespace kvcrush::reference
