// SPDX-License-Identifier: Apache-2.0
/// @file
/// The search behind find_rank_cut, over four kernels that each rung provides, and the scalar ones.
///
/// A sample brackets the wanted key. Each pass over the scores then splits the bracket into at most
/// 256 buckets, counts the keys in each and keeps the bucket with the wanted one, until few enough
/// keys are left to sort or only one key is possible. The sample decides only how long this takes:
/// a bracket that turns out wrong costs one pass, and without any help of the sample four such
/// passes end the search, eight bits of the key in each.
/// @see Floyd, Rivest, "Expected time bounds for selection", CACM 18(3), 1975 (the bracket from a
///   sample)
#pragma once

#include <kvcrush/simd/ordered_key.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// A boundary in the order of scores. A token is inside if its key is above `key`, or equal to it
/// with an index below `tie_end`.
struct rank_cut {
    std::uint32_t key;
    std::size_t tie_end;

    [[nodiscard]] constexpr bool contains(float score, std::size_t token) const noexcept {
        const std::uint32_t own = ordered_key(score);
        return own > key || (own == key && token < tie_end);
    }
    friend constexpr bool operator==(const rank_cut&, const rank_cut&) = default;
};

namespace detail {

/// The smallest key inside the cut for tokens at its tie_end and behind it. No float has the key
/// no_key.
[[nodiscard]] constexpr std::uint32_t bound_after_ties(rank_cut cut) noexcept {
    return cut.key == no_key ? no_key : cut.key + 1;
}

/// Keys from `low` to `high`, both included.
struct key_range {
    std::uint32_t low;
    std::uint32_t high;
};

inline constexpr key_range all_keys{0, no_key};

inline constexpr std::size_t num_buckets = 256;
/// Neighbouring keys of one bucket go to different tables: increments of one address wait for one
/// another.
inline constexpr std::size_t num_tables = 4;
using bucket_tables = std::array<std::array<std::uint32_t, num_buckets>, num_tables>;

/// So many keys are sorted instead of being split further.
inline constexpr std::size_t max_sorted_keys = 512;

/// Size of the sample. More samples shrink the bracket, but comparing them with one another costs
/// the square.
[[nodiscard]] constexpr std::size_t num_samples_of(std::size_t num_scores) noexcept {
    return num_scores < 16384 ? 64 : num_scores < 131072 ? 128 : 256;
}
inline constexpr std::size_t max_samples = num_samples_of(~std::size_t{0});

/// Keys above a range and in it.
struct key_counts {
    std::size_t above;
    std::size_t within;
};

/// (key, token) as one number: descending order puts larger keys first, and of equal ones the
/// earlier token.
[[nodiscard]] constexpr std::uint64_t keyed_token(std::uint32_t key, std::size_t token) noexcept {
    return (std::uint64_t{key} << 32) | static_cast<std::uint32_t>(~token);
}

struct rank_kernels_scalar {
    /// The keys of descending rank `above` and `below` in a sample.
    static key_range
    bracket(std::span<std::uint32_t> sample, std::size_t above, std::size_t below) noexcept {
        std::nth_element(sample.begin(),
                         sample.begin() + static_cast<std::ptrdiff_t>(above),
                         sample.end(),
                         std::greater<>{});
        const std::uint32_t high = sample[above];
        std::nth_element(sample.begin(),
                         sample.begin() + static_cast<std::ptrdiff_t>(below),
                         sample.end(),
                         std::greater<>{});
        return {sample[below], high};
    }

    /// Counts the keys of `range` in buckets of 2^shift keys. Returns how many keys are above the
    /// range.
    static std::size_t fill_buckets(std::span<const float> scores,
                                    key_range range,
                                    unsigned shift,
                                    bucket_tables& tables) noexcept {
        std::size_t above = 0;
        for (std::size_t i = 0; i < scores.size(); ++i) {
            const std::uint32_t key = ordered_key(scores[i]);
            above += key > range.high ? 1U : 0U;
            if (key - range.low <= range.high - range.low) {
                ++tables[i % num_tables][(key - range.low) >> shift];
            }
        }
        return above;
    }

    static key_counts count(std::span<const float> scores, std::uint32_t key) noexcept {
        key_counts counts{0, 0};
        for (const float score : scores) {
            const std::uint32_t own = ordered_key(score);
            counts.above += own > key ? 1U : 0U;
            counts.within += own == key ? 1U : 0U;
        }
        return counts;
    }

    /// The smallest and the largest key in the range, which holds at least one.
    static key_range tighten(std::span<const float> scores, key_range range) noexcept {
        key_range tight{range.high, range.low};
        for (const float score : scores) {
            const std::uint32_t key = ordered_key(score);
            if (key - range.low <= range.high - range.low) {
                tight.low = (std::min)(tight.low, key);
                tight.high = (std::max)(tight.high, key);
            }
        }
        return tight;
    }

    /// Writes the tokens of `range` with their keys; the caller knows that they fit.
    static std::size_t
    collect(std::span<const float> scores, key_range range, std::uint64_t* out) noexcept {
        std::size_t num = 0;
        for (std::size_t i = 0; i < scores.size(); ++i) {
            const std::uint32_t key = ordered_key(scores[i]);
            if (key - range.low <= range.high - range.low) {
                out[num++] = keyed_token(key, i);
            }
        }
        return num;
    }

    /// The token that holds `key` for the nth time, counted from 0.
    static std::size_t
    find_nth(std::span<const float> scores, std::uint32_t key, std::size_t nth) noexcept {
        std::size_t i = 0;
        for (;; ++i) {
            if (ordered_key(scores[i]) == key && nth-- == 0) {
                return i;
            }
        }
    }
};

/// A range that probably holds the key of rank k.
template <typename Kernels>
[[nodiscard]] inline key_range bracket_by_sample(std::span<const float> scores,
                                                 std::size_t k) noexcept {
    const std::size_t num_samples = num_samples_of(scores.size());
    std::array<std::uint32_t, max_samples> sample;
    const std::size_t step = scores.size() / num_samples;
    for (std::size_t i = 0; i < num_samples; ++i) {
        // Somewhere in each part of equal length: scores may repeat with the period of a page.
        const std::size_t mixed = ((i * std::size_t{0x9E3779B1}) >> 16) & 0xFFFFU;
        sample[i] = ordered_key(scores[i * step + ((mixed * step) >> 16)]);
    }
    const double share = static_cast<double>(k) / static_cast<double>(scores.size());
    const double rank = share * static_cast<double>(num_samples);
    // 2.25 standard deviations of a binomial: one search in forty pays another pass.
    const double margin = 2.25 * std::sqrt(rank * (1.0 - share)) + 1.0;
    const double last = static_cast<double>(num_samples - 1);
    key_range range = Kernels::bracket(std::span(sample).first(num_samples),
                                       static_cast<std::size_t>((std::max)(rank - margin, 0.0)),
                                       static_cast<std::size_t>((std::min)(rank + margin, last)));
    // The wanted key is outside all samples with probability exp(-rank). Opening the bracket on
    // that side costs a pass, since most buckets are then empty; not opening it costs two where it
    // would have been needed.
    range.high = rank < 0.75 ? no_key : range.high;
    range.low = rank > last + 0.25 ? 0 : range.low;
    return range;
}

/// @pre 0 < k < scores.size()
template <typename Kernels>
[[nodiscard]] inline rank_cut search_rank_cut(std::span<const float> scores,
                                              std::size_t k) noexcept {
    key_range range = all_keys;
    std::size_t above = 0; // keys above the range
    std::size_t within = scores.size();
    if (scores.size() > max_sorted_keys) {
        range = bracket_by_sample<Kernels>(scores, k);
        within = 0; // not known yet
    }
    bucket_tables tables;
    while (within == 0 || within > max_sorted_keys) {
        const std::uint32_t width = range.high - range.low;
        const auto bits = static_cast<unsigned>(32 - std::countl_zero(width));
        const unsigned shift = bits > 8 ? bits - 8 : 0;
        if (width == 0) {
            const key_counts counts = Kernels::count(scores, range.low);
            above = counts.above;
            within = counts.within;
        } else {
            tables = {};
            above = Kernels::fill_buckets(scores, range, shift, tables);
            within = 0;
            for (std::size_t b = 0; b < num_buckets; ++b) {
                tables[0][b] += tables[1][b] + tables[2][b] + tables[3][b];
                within += tables[0][b];
            }
        }
        if (k <= above) {
            range = {range.high + 1, no_key};
            within = 0;
        } else if (k > above + within) {
            range = {0, range.low - 1};
            within = 0;
        } else if (width == 0) {
            return {range.low, Kernels::find_nth(scores, range.low, k - above - 1) + 1};
        } else {
            std::uint32_t bucket = width >> shift;
            while (k > above + tables[0][bucket]) {
                above += tables[0][bucket];
                --bucket;
            }
            within = tables[0][bucket];
            const std::uint32_t low = range.low + (bucket << shift);
            range = {low, low + (std::min)(range.high - low, (1U << shift) - 1U)};
            if (within > max_sorted_keys) {
                // Either many scores are equal, and then this often ends the search, or they are
                // very close together.
                range = Kernels::tighten(scores, range);
                if (range.low == range.high) {
                    return {range.low, Kernels::find_nth(scores, range.low, k - above - 1) + 1};
                }
            }
        }
    }
    std::array<std::uint64_t, max_sorted_keys> left{};
    const std::size_t num = Kernels::collect(scores, range, left.data());
    const auto wanted = left.begin() + static_cast<std::ptrdiff_t>(k - above - 1);
    std::nth_element(
        left.begin(), wanted, left.begin() + static_cast<std::ptrdiff_t>(num), std::greater<>{});
    return {static_cast<std::uint32_t>(*wanted >> 32),
            static_cast<std::uint32_t>(~*wanted) + std::size_t{1}};
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
