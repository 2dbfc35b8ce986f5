// SPDX-License-Identifier: Apache-2.0
/// @file
/// The portrait of a token that KVCrush is named for: which heads care about it?
#pragma once

#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/score_view.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/math/finite_mean.hpp>
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/convert.hpp>
#include <kvcrush/simd/gather_heads.hpp>
#include <kvcrush/simd/head_packer.hpp>
#include <kvcrush/simd/ordered_key.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <string_view>
#include <type_traits>

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
    static constexpr named_value<bit_rule> values[] = {{"top_fraction", bit_rule::top_fraction},
                                                       {"mean", bit_rule::mean}};
};

/// One bit per head: bit h of token t is set where head h cares about token t.
/// @see KVCrush, arXiv:2503.00022, token level. The rank rule is that of the authors' vLLM code.
struct head_signature {
    static constexpr std::string_view name = "head";

    bit_rule rule = bit_rule::top_fraction;
    /// Share of the middle tokens that a head marks, in [0, 1]. Only for top_fraction.
    double quantile = 0.5;

    static constexpr auto parameters() {
        return parameter_list{
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
    /// For fp32 scores of one piece.
    [[nodiscard]] std::size_t scratch_bytes(std::size_t num_heads) const noexcept {
        static_cast<void>(num_heads);
        return 0;
    }
    /// For any score_view: rows that are not contiguous floats are brought together a few heads at a time.
    [[nodiscard]] std::size_t scratch_bytes(std::size_t num_heads,
                                            std::size_t seq_len) const noexcept {
        return scratch_bytes(num_heads) +
               scratch::bytes<float>((std::min)(num_heads, simd::heads_gathered) *
                                     (seq_len + padding));
    }

    /// @param[in]  observed  [num_heads, seq_len]: what each head thinks of each token, not pooled
    /// @param[in]  area      signatures are made for its middle tokens only
    /// @param[out] codes     [num_middle, words], token-major, bits above num_heads are 0
    /// @note  O(num_heads * num_middle), at most 4096 heads; the scores of a head are read while they are in the
    ///        cache, first for its cut and then for its bits
    template <simd::CodeWord Code>
    void build(const_head_scores observed,
               const areas& area,
               std::span<Code> codes,
               scratch /*memory*/) const noexcept {
        simd::head_packer<Code> packer(codes, observed.num_heads());
        for (std::size_t head = 0; head < observed.num_heads(); ++head) {
            const std::span<const float> scores = area.middle(observed.row(head));
            packer.add(head, scores, cut(scores));
        }
        packer.finish();
    }

    /// The same codes from scores of any element type and order.
    /// @param[in]  memory  scratch_bytes(num_heads, seq_len)
    template <typename T, simd::CodeWord Code>
    void build(const score_view<T>& observed,
               const areas& area,
               std::span<Code> codes,
               scratch memory) const noexcept {
        const std::size_t num_heads = observed.num_heads();
        const std::size_t num_tokens = area.num_middle();
        simd::head_packer<Code> packer(codes, num_heads);
        const bool contiguous = observed.rows_are_contiguous();
        const std::size_t staged_heads = contiguous ? std::size_t{1} : simd::heads_gathered;
        const std::size_t row_stride = num_tokens + padding;
        const std::span<float> staged =
            memory.take<float>((std::min)(num_heads, staged_heads) * row_stride);
        for (std::size_t first = 0; first < num_heads; first += staged_heads) {
            const std::size_t num = (std::min)(staged_heads, num_heads - first);
            if (!contiguous && num_tokens > 0) {
                simd::gather_heads<T>({observed.address(first, area.middle_begin),
                                       observed.strides().head,
                                       observed.strides().token,
                                       num,
                                       num_tokens,
                                       staged.data(),
                                       row_stride});
            }
            for (std::size_t head = first; head < first + num; ++head) {
                std::span<const float> scores =
                    staged.subspan((head - first) * row_stride, num_tokens);
                if (contiguous) {
                    const std::span<const T> row = area.middle(observed.row(head));
                    if constexpr (std::is_same_v<T, float>) {
                        scores = row;
                    } else {
                        simd::to_float(row, staged.first(num_tokens));
                    }
                }
                packer.add(head, scores, cut(scores));
            }
        }
        packer.finish();
    }

private:
    /// Between staged rows [floats]: rows a power of two apart would fight for cache sets.
    static constexpr std::size_t padding = 16;

    [[nodiscard]] simd::rank_cut cut(std::span<const float> scores) const noexcept {
        if (rule == bit_rule::top_fraction) {
            const auto ones =
                static_cast<std::size_t>(quantile * static_cast<double>(scores.size()));
            return simd::find_rank_cut(scores, ones);
        }
        return {simd::ordered_key(static_cast<float>(finite_mean(scores).mean)), 0};
    }
};

} // namespace v0
} // namespace kvcrush
