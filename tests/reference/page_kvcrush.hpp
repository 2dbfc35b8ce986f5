// SPDX-License-Identifier: Apache-2.0
/// @file
/// KVCrush over pages, written to be read.
#pragma once

#include "kvcrush.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace kvcrush::reference {

struct page_settings {
    std::size_t page_size = 16;
    double share = 0.25;
    bool shared_table = false;
    std::string bits = "per_head";
    double quantile = 0.5;
    bool anchor_per_page = false;
    bool farthest_first = false;
    std::string anchor = "alternate";
    std::string pick = "linspace";
    std::uint64_t seed = 0;
};

using score_rows = std::vector<std::vector<double>>;

[[nodiscard]] inline double number_or_zero(double x) { return std::isnan(x) ? 0.0 : x; }

/// Scores of a row of tokens, added up page by page.
[[nodiscard]] inline std::vector<double> page_sums(const std::vector<double>& row,
                                                   std::size_t page_size) {
    std::vector<double> sums((row.size() + page_size - 1) / page_size, 0.0);
    for (std::size_t t = 0; t < row.size(); ++t) {
        sums[t / page_size] += number_or_zero(row[t]);
    }
    return sums;
}

/// Distances of pages to the anchor; rows [heads][tokens].
[[nodiscard]] inline std::vector<std::size_t> page_distances(const score_rows& rows,
                                                             const page_settings& settings) {
    const bit_rows token_bits = signatures(rows, settings.quantile);
    const std::size_t heads = rows.size();
    const std::size_t num_bits = settings.page_size * heads;
    const std::size_t pages = (token_bits.size() + settings.page_size - 1) / settings.page_size;
    bit_rows portraits(pages, std::vector<bool>(num_bits, false));
    for (std::size_t t = 0; t < token_bits.size(); ++t) {
        for (std::size_t h = 0; h < heads; ++h) {
            portraits[t / settings.page_size][t % settings.page_size * heads + h] =
                token_bits[t][h];
        }
    }
    const kvcrush_settings anchor{.anchor = settings.anchor, .seed = settings.seed};
    std::vector<std::size_t> distances(pages);
    for (std::size_t page = 0; page < pages; ++page) {
        std::vector<bool> to = anchor_of(portraits, num_bits, anchor);
        if (settings.anchor_per_page) {
            to.assign(num_bits, anchor_of({}, pages, anchor)[page]);
        }
        distances[page] = hamming(portraits[page], to);
    }
    return distances;
}

[[nodiscard]] inline bool holds(const index_list& list, std::uint32_t value) {
    return std::find(list.begin(), list.end(), value) != list.end();
}

/// Kept tokens of each kv head.
/// @param scores  [heads][tokens of the sequence]
[[nodiscard]] inline std::vector<index_list> page_kvcrush(const score_rows& scores,
                                                          std::size_t sinks,
                                                          std::size_t recent,
                                                          std::size_t budget,
                                                          const page_settings& settings) {
    const std::size_t length = scores.empty() ? 0 : scores.front().size();
    const std::size_t begin = std::min(sinks, length);
    const std::size_t recent_begin = length - std::min(recent, length - begin);
    const std::size_t pages = (recent_begin - begin) / settings.page_size;
    const std::size_t middle = pages * settings.page_size;
    const std::size_t end = begin + middle;
    std::size_t middle_budget = budget - std::min(budget, length - (recent_begin - begin));
    // Tokens between the last whole page and the recent ones: the newest that there is room for.
    const std::size_t kept_rest = std::min(middle_budget, recent_begin - end);
    middle_budget -= kept_rest;
    const std::size_t kept_pages = std::min(middle_budget / settings.page_size, pages);
    std::size_t picks =
        static_cast<std::size_t>(settings.share * static_cast<double>(middle_budget)) /
        settings.page_size;
    picks = std::min(std::max(picks, std::size_t{settings.share > 0.0 ? 1U : 0U}), kept_pages);

    score_rows rows;
    std::vector<double> all(middle, 0.0);
    for (const std::vector<double>& row : scores) {
        rows.emplace_back(row.begin() + static_cast<std::ptrdiff_t>(begin),
                          row.begin() + static_cast<std::ptrdiff_t>(end));
        for (std::size_t t = 0; t < middle; ++t) {
            all[t] += number_or_zero(rows.back()[t]);
        }
    }
    std::vector<index_list> kept;
    for (std::size_t head = 0; head < scores.size(); ++head) {
        const std::vector<double> sums =
            page_sums(settings.shared_table ? all : rows[head], settings.page_size);
        index_list chosen = best(sums, all_of(pages), kept_pages - picks);
        index_list rest;
        for (const std::uint32_t page : all_of(pages)) {
            if (!holds(chosen, page)) {
                rest.push_back(page);
            }
        }
        std::vector<std::size_t> distances(pages, 0);
        if (settings.bits == "summed_rest") {
            std::vector<double> rest_tokens;
            for (const std::uint32_t page : rest) {
                const std::size_t from = page * settings.page_size;
                for (std::size_t t = from; t < std::min(from + settings.page_size, middle); ++t) {
                    rest_tokens.push_back(all[t]);
                }
            }
            const std::vector<std::size_t> of_rest = page_distances({rest_tokens}, settings);
            for (std::size_t i = 0; i < rest.size(); ++i) {
                distances[rest[i]] = of_rest[i];
            }
        } else {
            distances =
                page_distances(settings.bits == "summed" ? score_rows{all} : rows, settings);
        }
        const bool farthest_first = settings.farthest_first || settings.pick == "farthest";
        std::stable_sort(rest.begin(), rest.end(), [&](std::uint32_t a, std::uint32_t b) {
            return farthest_first ? distances[a] > distances[b] : distances[a] < distances[b];
        });
        for (const std::uint32_t page : representatives(rest, sums, picks, settings.pick)) {
            chosen.push_back(page);
        }
        index_list tokens;
        for (std::size_t t = 0; t < length; ++t) {
            const bool of_page = t >= begin && t < end;
            const bool of_rest = t >= end && t < recent_begin;
            if ((!of_page ||
                 holds(chosen, static_cast<std::uint32_t>((t - begin) / settings.page_size))) &&
                (!of_rest || t >= recent_begin - kept_rest)) {
                tokens.push_back(static_cast<std::uint32_t>(t));
            }
        }
        kept.push_back(tokens);
    }
    return kept;
}

} // namespace kvcrush::reference
