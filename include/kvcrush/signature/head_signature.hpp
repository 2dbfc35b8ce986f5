// SPDX-License-Identifier: Apache-2.0
/// @file
/// The portrait of a token that KVCrush is named for: which heads care about it?
#pragma once

#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/ordered_key.hpp>
#include <kvcrush/simd/pack_bits.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>

namespace kvcrush {
inline namespace v0 {

/// When a head "cares" about a token.
enum class bit_rule {
    /// The token is among the head's best floor(quantile * tokens): immune to scale, exact under ties.
    top_fraction,
    /// The token's score lies above the head's mean.
    mean
};

template <>
struct enum_names<bit_rule> {
    static constexpr std::array values{
        std::pair{std::string_view("top_fraction"), bit_rule::top_fraction},
        std::pair{std::string_view("mean"), bit_rule::mean}};
};

/// One bit per head: bit h of token t is set where head h cares about token t.
/// @see KVCrush, arXiv:2503.00022, token level. The rank rule is that of the authors' vLLM code.
struct head_signature {
    static constexpr std::string_view name = "head";

    bit_rule rule = bit_rule::top_fraction;
    /// Share of the middle tokens that a head marks, in [0, 1]. Only for top_fraction.
    double quantile = 0.5;

    static constexpr auto parameters() {
        return std::tuple{
            parameter{"rule", &head_signature::rule, "a head marks its"},
            parameter{"quantile", &head_signature::quantile, "share of the tokens a head marks"}};
    }

    /// @throws std::invalid_argument if quantile lies outside [0, 1]
    void validate() const {
        detail::require(quantile >= 0.0 && quantile <= 1.0,
                        "head_signature: quantile is ",
                        quantile,
                        "; it must lie in [0, 1]");
    }

    [[nodiscard]] std::size_t num_bits(std::size_t num_heads) const noexcept { return num_heads; }
    [[nodiscard]] std::size_t scratch_bytes(std::size_t num_heads) const noexcept {
        return scratch::bytes<simd::rank_cut>(num_heads);
    }

    /// @param[in]  observed  [num_heads, seq_len]: what each head thinks of each token, not pooled
    /// @param[in]  area      signatures are made for its middle tokens only
    /// @param[out] codes     [num_middle, words], token-major, bits above num_heads are 0
    template <simd::CodeWord Code>
    void build(const_head_scores observed,
               const areas& area,
               std::span<Code> codes,
               scratch memory) const noexcept {
        const std::span<simd::rank_cut> cuts = memory.take<simd::rank_cut>(observed.num_heads());
        for (std::size_t head = 0; head < observed.num_heads(); ++head) {
            cuts[head] = cut(area.middle(observed.row(head)));
        }
        simd::pack_heads(
            observed.values().subspan((std::min)(area.middle_begin, observed.values().size())),
            observed.seq_len(),
            std::span<const simd::rank_cut>(cuts),
            codes);
    }

private:
    [[nodiscard]] simd::rank_cut cut(std::span<const float> scores) const noexcept {
        if (rule == bit_rule::top_fraction) {
            const auto ones =
                static_cast<std::size_t>(quantile * static_cast<double>(scores.size()));
            return simd::find_rank_cut(scores, ones);
        }
        double sum = 0.0;
        std::size_t count = 0;
        for (const float score : scores) {
            if (std::isfinite(score)) { // one NaN must not silence a head
                sum += static_cast<double>(score);
                ++count;
            }
        }
        const double mean = count == 0 ? 0.0 : sum / static_cast<double>(count);
        return {simd::ordered_key(static_cast<float>(mean)), 0};
    }
};

} // namespace v0
} // namespace kvcrush
