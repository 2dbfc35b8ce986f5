// SPDX-License-Identifier: Apache-2.0
/// @file
/// The best-scored tokens of each stretch of the sequence.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/select/selector.hpp>
#include <kvcrush/simd/top_k.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Shares of equal partitions, of which the last may be shorter, in a budget of tokens: in proportion to their lengths,
/// rounded by largest remainder, ties to the earlier partition. They add up to the budget.
class partition_shares {
public:
    /// @param lag  tokens of a partition, at least 1
    /// @pre   budget <= num_tokens < 2^32
    constexpr partition_shares(std::size_t num_tokens, std::size_t lag, std::size_t budget) noexcept
        : lag_(lag), num_full_(num_tokens / lag), rest_(num_tokens % lag) {
        KVCRUSH_ASSERT(lag > 0 && budget <= num_tokens);
        if (num_tokens == 0) {
            return;
        }
        // Full partitions share their quota and its remainder, so that two quotas tell all.
        const std::uint64_t full = num_full_ == 0 ? 0 : std::uint64_t{budget} * lag;
        const std::uint64_t last = std::uint64_t{budget} * rest_;
        share_ = full / num_tokens;
        last_share_ = last / num_tokens;
        extra_ = budget - num_full_ * share_ - last_share_;
        if (extra_ > 0 && last % num_tokens > full % num_tokens) {
            ++last_share_;
            --extra_;
        }
    }

    [[nodiscard]] constexpr std::size_t size() const noexcept {
        return num_full_ + (rest_ > 0 ? 1 : 0);
    }
    /// Tokens in a partition.
    [[nodiscard]] constexpr std::size_t length(std::size_t i) const noexcept {
        return i < num_full_ ? lag_ : rest_;
    }
    /// Tokens it keeps.
    [[nodiscard]] constexpr std::size_t operator[](std::size_t i) const noexcept {
        return i < num_full_ ? share_ + (i < extra_ ? 1 : 0) : last_share_;
    }

private:
    std::size_t lag_;
    std::size_t num_full_;
    std::size_t rest_;
    std::size_t share_ = 0;
    std::size_t last_share_ = 0;
    std::size_t extra_ = 0; ///< full partitions that keep one more token
};

} // namespace detail

/// Cuts the middle into partitions of `lag` tokens; each keeps its best-scored tokens, a share of the middle budget in
/// proportion to its length. No stretch of the text is forgotten whole, whatever the scores say. The scores of
/// different partitions are never compared, so scorers may measure each partition with a measure of its own.
///
///     share[p] = middle budget * length[p] / middle tokens, rounded by largest remainder, ties to the earlier p
///     |<- sink ->|<- lag ->|<- lag ->| ... |<- rest ->|<- recent ->|
///
/// Within a partition ties keep the earlier token, and NaN is the lowest score.
/// @note  O(seq_len) per kv head
/// @see   LagKV, arXiv:2504.04704, for lag_kv_scorer: with as many sinks as that scorer skips, the partitions of both
///        fall together, and num_recent_tokens = lag is the paper's sliding window. Deviation: the total is exact (the
///        paper rounds the share of each partition down).
struct partition_selector {
    static constexpr std::string_view name = "partition";
    static constexpr std::string_view about = "the best-scored tokens of each stretch of the text";

    /// Tokens of a partition. 128 in the LagKV paper.
    std::size_t lag = 128;

    static constexpr auto parameters() {
        return parameter_list{parameter{"lag", &partition_selector::lag, "tokens of a partition"}};
    }

    /// @throws std::invalid_argument if lag is 0
    void validate() const {
        detail::require(lag > 0, "partition: lag is 0; it must be at least 1 token");
    }

    [[nodiscard]] std::size_t scratch_bytes(const problem_size&) const noexcept { return 0; }

    template <typename... Inputs>
    void select(const selection_request& request, selection& out, const Inputs&...) const noexcept {
        const const_head_scores scores = request.scores;
        const areas& area = request.area;
        const std::size_t width = (std::max)((std::min)(lag, area.num_middle()), std::size_t{1});
        out.clear();
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const std::size_t budget = detail::middle_budget(area, request.counts[head]);
            const detail::partition_shares shares(area.num_middle(), width, budget);
            const std::span<const float> row = area.middle(scores.row(head));
            out.extend_range(0, area.middle_begin);
            for (std::size_t i = 0; i < shares.size(); ++i) {
                const std::size_t first = i * width;
                simd::top_k(row.subspan(first, shares.length(i)),
                            shares[i],
                            out.extend(shares[i]),
                            static_cast<token_index>(area.middle_begin + first));
            }
            out.extend_range(area.middle_end, area.seq_len);
            out.end_head();
        }
    }
};

} // namespace v0
} // namespace kvcrush
