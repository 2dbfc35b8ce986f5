// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tokens that stand out from the text that follows them.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/math/row_batches.hpp>
#include <kvcrush/simd/softmax.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Scores a token by how unevenly its key and value lie in the range that the next partition of tokens spans. Needs
/// neither queries nor attention weights.
///
///     |<- num_sink_tokens ->|<- lag ->|<- lag ->| ... |<- lag ->|<- rest ->|
///     z[j, c]   = (x[j, c] - min_c) / max(max_c - min_c, epsilon), min and max over the next partition
///     part[j]   = softmax over the partition of std over c of z[j, c]                   (unbiased std)
///     mixed[j]  = (part of keys + part of values) / 2
///     importance[k, j] = (tokens of the partition that are worse) / lag                 in [0, 1)
///
/// Ranks make the best tokens of all partitions equal, so that under top_k each keeps about the same share; with
/// partition_selector each keeps exactly its share. cross_scoring = true gives mixed[j] itself, which compares tokens
/// of different partitions. Sinks, the last full partition and the rest have no reference behind them and score 1.
/// A sequence shorter than num_sink_tokens + 2 * lag has no partition to score: later tokens score higher, which under a
/// budget is a sliding window.
/// @note O(num_kv_heads * seq_len * (key_dim + value_dim)). Ranges pass over NaN and infinities; a token that has one
///       counts as the worst of its partition. Scores are always finite.
/// @see  LagKV, arXiv:2504.04704, and NVIDIA kvpress, whose score this is. Deviations: a channel that the next partition
///       does not vary is divided by epsilon (0 there, which gives NaN); the earlier of two equal tokens gets the
///       better rank (not specified there).
struct lag_kv_scorer {
    static constexpr std::string_view name = "lag_kv";
    static constexpr std::string_view about = "tokens that stand out from the text that follows";
    static constexpr bool needs_attention = false;

    /// Tokens of a partition. 128 in the paper.
    std::size_t lag = 128;
    /// Tokens before the first partition; as many as the areas protect.
    std::size_t num_sink_tokens = 4;
    /// Scores that compare tokens of different partitions. false in the paper.
    bool cross_scoring = false;
    /// Smallest range of a channel.
    double epsilon = 1e-6;

    static constexpr auto parameters() {
        using self = lag_kv_scorer;
        return parameter_list{
            parameter{"lag", &self::lag, "tokens of a partition"},
            parameter{"scorer_sinks", &self::num_sink_tokens, "tokens before the first partition"},
            parameter{"cross", &self::cross_scoring, "compare tokens of different partitions"},
            parameter{"epsilon", &self::epsilon, "smallest range of a channel"}};
    }

    /// @throws std::invalid_argument if lag is 0 or above 2^24, or epsilon is not above 0
    void validate() const {
        detail::require(lag > 0 && lag <= most_tokens,
                        "lag_kv: lag is ",
                        lag,
                        "; it must lie in [1, ",
                        most_tokens,
                        "] tokens");
        detail::require(epsilon >= 1e-30 && epsilon <= 1e30,
                        "lag_kv: epsilon is ",
                        epsilon,
                        "; it must lie in [1e-30, 1e30]");
    }

    /// @param[in]  kv      [num_kv_heads, seq_len, head_dim]
    /// @param[out] scores  [num_kv_heads, seq_len]
    template <KvSource Kv>
    void score(const Kv& kv, head_scores scores) const noexcept {
        const kv_shape shape = kv.shape();
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const std::span<float> row = scores.row(head);
            const std::size_t sinks = (std::min)(num_sink_tokens, row.size());
            const std::size_t num_partitions = (row.size() - sinks) / lag;
            std::fill(row.begin(), row.end(), 1.0F);
            if (num_partitions < 2) {
                const std::span<float> ramp = row.subspan(sinks);
                for (std::size_t t = 0; t < ramp.size(); ++t) {
                    ramp[t] = static_cast<float>(t) / static_cast<float>(ramp.size());
                }
                continue;
            }
            for (std::size_t p = 0; p + 1 < num_partitions; ++p) {
                const std::size_t first = sinks + p * lag;
                const std::span<float> keys = row.subspan(first, lag);
                // The next partition's scores are not known yet: their place holds what this one needs meanwhile.
                const std::span<float> values = row.subspan(first + lag, lag);
                deviations(
                    [&](std::size_t t) { return kv.key(head, first + t); }, shape.key_dim, keys);
                deviations([&](std::size_t t) { return kv.value(head, first + t); },
                           shape.value_dim,
                           values);
                simd::softmax(keys);
                simd::softmax(values);
                for (std::size_t t = 0; t < lag; ++t) {
                    keys[t] = (keys[t] + values[t]) / 2.0F;
                }
                if (!cross_scoring) {
                    rank(keys, values);
                }
            }
            std::fill(row.begin() + static_cast<std::ptrdiff_t>(sinks + (num_partitions - 1) * lag),
                      row.end(),
                      1.0F);
        }
    }

private:
    /// Floats hold token numbers exactly up to here.
    static constexpr std::size_t most_tokens = std::size_t{1} << 24;
    /// Channels and tokens that have a place on the stack.
    static constexpr std::size_t block = 512;
    static constexpr std::size_t strip = 64;
    /// A fixed count, so that -O2 makes vectors of it.
    static constexpr std::size_t step = 16;

    struct ranges {
        std::array<float, block> low;
        std::array<float, block> inverse; ///< 1 / range
    };

    /// Number, mean and sum of squared differences of some values.
    struct spread {
        float mean = 0.0F;
        float squares = 0.0F;

        /// @param count  values seen before
        /// @param added  values of `other`
        void join(const spread& other, std::size_t count, std::size_t added) noexcept {
            const float share = static_cast<float>(added) / static_cast<float>(count + added);
            const float difference = other.mean - mean;
            mean += difference * share;
            squares += other.squares + difference * difference * share * static_cast<float>(count);
        }
    };

    /// Standard deviations over the channels of the first out.size() rows, scaled to the ranges of as many rows behind
    /// them.
    template <typename RowOf>
    void deviations(RowOf row_of, std::size_t dim, std::span<float> out) const noexcept {
        const std::size_t tokens = out.size();
        ranges range;
        std::array<spread, strip> spreads;
        for (std::size_t begin = 0; begin < tokens; begin += strip) {
            const std::size_t count = (std::min)(strip, tokens - begin);
            std::fill_n(spreads.begin(), count, spread{});
            for (std::size_t c = 0; c < dim; c += block) {
                const std::size_t width = (std::min)(block, dim - c);
                if (begin == 0 || dim > block) {
                    find_ranges(
                        [&](std::size_t t) {
                            return detail::channels_of(row_of(tokens + t), c, width);
                        },
                        tokens,
                        width,
                        range);
                }
                for (std::size_t t = 0; t < count; ++t) {
                    std::array<float, block> staging;
                    const float* const row = detail::as_floats(
                        detail::channels_of(row_of(begin + t), c, width), staging);
                    spreads[t].join(scaled_spread(row, width, range), c, width);
                }
            }
            for (std::size_t t = 0; t < count; ++t) {
                out[begin + t] =
                    dim < 2 ? 0.0F : std::sqrt(spreads[t].squares / static_cast<float>(dim - 1));
            }
        }
    }

    template <typename RowOf>
    void
    find_ranges(RowOf row_of, std::size_t tokens, std::size_t width, ranges& range) const noexcept {
        constexpr float most = (std::numeric_limits<float>::max)();
        std::array<float, block> high;
        range.low.fill(most);
        high.fill(-most);
        for (std::size_t t = 0; t < tokens; ++t) {
            std::array<float, block> staging;
            const float* const row = detail::as_floats(row_of(t), staging);
            for (std::size_t c = 0; c < width; c += step) {
                float value[step] = {};
                float least[step];
                float largest[step];
                const std::size_t num = (std::min)(step, width - c);
                if (num == step) {
                    std::copy_n(row + c, step, value);
                } else {
                    std::copy_n(row + c, num, value);
                }
                std::copy_n(range.low.data() + c, step, least);
                std::copy_n(high.data() + c, step, largest);
                for (std::size_t i = 0; i < step; ++i) {
                    const bool finite = std::abs(value[i]) <= most;
                    const float low = finite ? value[i] : most;
                    const float top = finite ? value[i] : -most;
                    least[i] = low < least[i] ? low : least[i];
                    largest[i] = top > largest[i] ? top : largest[i];
                }
                std::copy_n(least, step, range.low.data() + c);
                std::copy_n(largest, step, high.data() + c);
            }
        }
        for (std::size_t c = 0; c < width; ++c) {
            const bool any = range.low[c] <= high[c];
            range.low[c] = any ? range.low[c] : 0.0F;
            const float width_of_range = any ? high[c] - range.low[c] : 0.0F;
            range.inverse[c] = 1.0F / (std::max)(width_of_range, static_cast<float>(epsilon));
        }
    }

    [[nodiscard]] static spread
    scaled_spread(const float* row, std::size_t width, const ranges& range) noexcept {
        std::array<float, block> scaled;
        std::array<float, step> sums{};
        std::size_t c = 0;
        for (; c + step <= width; c += step) {
            for (std::size_t i = 0; i < step; ++i) {
                scaled[c + i] = (row[c + i] - range.low[c + i]) * range.inverse[c + i];
                sums[i] += scaled[c + i];
            }
        }
        float sum = 0.0F;
        for (; c < width; ++c) {
            scaled[c] = (row[c] - range.low[c]) * range.inverse[c];
            sum += scaled[c];
        }
        for (const float one : sums) {
            sum += one;
        }
        spread result;
        result.mean = sum / static_cast<float>(width);
        sums.fill(0.0F);
        for (c = 0; c + step <= width; c += step) {
            for (std::size_t i = 0; i < step; ++i) {
                const float difference = scaled[c + i] - result.mean;
                sums[i] += difference * difference;
            }
        }
        for (; c < width; ++c) {
            const float difference = scaled[c] - result.mean;
            result.squares += difference * difference;
        }
        for (const float one : sums) {
            result.squares += one;
        }
        return result;
    }

    /// Replaces scores by the share of tokens that are worse.
    /// @param order  [scores.size()], overwritten
    static void rank(std::span<float> scores, std::span<float> order) noexcept {
        for (std::size_t t = 0; t < order.size(); ++t) {
            order[t] = static_cast<float>(t);
        }
        std::sort(order.begin(), order.end(), [scores](float a, float b) { // worst first
            const float left = scores[static_cast<std::size_t>(a)];
            const float right = scores[static_cast<std::size_t>(b)];
            return left != right ? left < right : a > b;
        });
        for (std::size_t i = 0; i < order.size(); ++i) {
            scores[static_cast<std::size_t>(order[i])] =
                static_cast<float>(i) / static_cast<float>(order.size());
        }
    }
};

} // namespace v0
} // namespace kvcrush
