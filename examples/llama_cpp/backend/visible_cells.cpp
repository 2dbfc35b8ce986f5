// SPDX-License-Identifier: Apache-2.0
#include "visible_cells.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>

namespace kvcrush_ggml {
namespace {

constexpr std::uint16_t hidden = 0xFC00; // -infinity

/// Queries of different sequences that are looked at one by one; more of them are a prompt.
constexpr std::size_t few_queries = 16;

/// What one query sees.
struct row_summary {
    std::size_t first = 0; ///< equal to `end` for nothing
    std::size_t end = 0;
    std::size_t count = 0;    ///< cells that are not hidden
    bool zeros_alone = false; ///< nothing but 0 and -infinity
};

[[nodiscard]] row_summary summarise(std::span<const kvcrush::f16> row) noexcept {
    const auto* const bits = reinterpret_cast<const std::uint16_t*>(row.data());
    std::size_t first = 0;
    std::size_t end = row.size();
    while (first < end && bits[first] == hidden) {
        ++first;
    }
    while (end > first && bits[end - 1] == hidden) {
        --end;
    }
    // In runs that a vector counts without overflow.
    row_summary found{first, end, 0, true};
    for (std::size_t at = first; at < end; at += 4096) {
        const std::size_t stop = (std::min)(end, at + 4096);
        std::uint16_t unseen = 0;
        std::uint16_t zeros = 0;
        for (std::size_t t = at; t < stop; ++t) {
            unseen = static_cast<std::uint16_t>(unseen + (bits[t] == hidden));
            zeros = static_cast<std::uint16_t>(zeros + ((bits[t] & 0x7FFF) == 0));
        }
        found.count += stop - at - unseen;
        found.zeros_alone = found.zeros_alone && zeros + unseen == stop - at;
    }
    return found;
}

} // namespace

visible_cells look_at(const mask_rows& mask, bool plain_mask) {
    const std::size_t queries = mask.num_queries;
    if (queries == 0 || mask.num_cells == 0) {
        return {};
    }
    if (mask.data == nullptr) {
        return {queries == 1 ? visibility::causal : visibility::each, 0, mask.num_cells};
    }
    visible_cells all{visibility::nothing, mask.num_cells, 0};
    std::size_t looked_at = 0;
    bool causal = true;
    bool zeros_alone = true;
    row_summary before{};
    for (std::size_t q = 0; q < queries; ++q) {
        const row_summary row = summarise(mask.row(q));
        zeros_alone = zeros_alone && row.zeros_alone;
        causal = causal && row.count > 0 && row.count == row.end - row.first &&
                 (q == 0 || (row.first == before.first && row.end == before.end + 1));
        before = row;
        if (row.count > 0) {
            looked_at += row.count;
            all.first = (std::min)(all.first, row.first);
            all.end = (std::max)(all.end, row.end);
        }
    }
    if (looked_at == 0) {
        return {};
    }
    if (plain_mask && zeros_alone && causal) {
        all.how = visibility::causal;
    } else if (plain_mask && zeros_alone &&
               (queries == 1 ||
                (queries <= few_queries && 2 * looked_at < queries * (all.end - all.first)))) {
        all.how = visibility::each;
    } else {
        all.how = visibility::masked;
    }
    return all;
}

seen_by_one
cells_of(const mask_rows& mask, std::size_t query, std::vector<kvcrush::token_index>& memory) {
    if (mask.data == nullptr) {
        return {0, mask.num_cells, {}};
    }
    const std::span<const kvcrush::f16> row = mask.row(query);
    const row_summary seen = summarise(row);
    if (seen.count == seen.end - seen.first) {
        return {seen.first, seen.count, {}};
    }
    memory.resize(mask.num_cells);
    std::size_t count = 0;
    for (std::size_t t = seen.first; t < seen.end; ++t) {
        memory[count] = static_cast<kvcrush::token_index>(t);
        count += std::bit_cast<std::uint16_t>(row[t]) != hidden;
    }
    return {0, count, std::span(memory).first(count)};
}

} // namespace kvcrush_ggml
