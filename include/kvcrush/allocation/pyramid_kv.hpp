// SPDX-License-Identifier: Apache-2.0
/// @file
/// Lower layers look around and keep more, higher layers know what they want and keep less.
#pragma once

#include <kvcrush/allocation/largest_remainder.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

namespace kvcrush {
inline namespace v0 {

enum class pyramid_rule {
    /// The straight line, rounded by largest remainder: the total is exact.
    exact,
    /// Whole steps as in the authors' code: the total drifts by up to half a token per layer and layer below it.
    published,
    /// The line of NVIDIA kvpress, which counts the protected tokens in and starts from a budget that is not rounded; each
    /// layer is rounded on its own, the even ones of a budget that is too small for a line as well.
    kvpress
};

template <>
struct enum_names<pyramid_rule> {
    static constexpr named_value<pyramid_rule> values[] = {{"exact", pyramid_rule::exact},
                                                           {"published", pyramid_rule::published},
                                                           {"kvpress", pyramid_rule::kvpress}};
};

/// Budgets that fall along a straight line from the first layer to the last. With c middle tokens per head on average
/// and m that there are:
///
///     last  = c / beta,  first = 2 c - last          if first >= m: first = m, last = 2 c - m
///     middle tokens of layer l = first - l * (first - last) / (num_layers - 1)
///
/// Every head of a layer keeps as many, unless an allocator divides them. Where the sequence has fewer than 2 c tokens,
/// all layers keep c.
///
///     const std::vector<std::size_t> tokens = pyramid_kv{}.layer_tokens(num_layers, seq_len, budget::tokens(512));
///     for each layer l:
///         crush.plan(size, budget::tokens(tokens[l]));
///         compact(kv, crush.select(kv, queries));
/// @see PyramidKV, arXiv:2406.02069. Deviations: the line itself is rounded, so that layers have the exact total
///      (`published` and `kvpress` do not); what stays beside the line are sinks and recent tokens, there the
///      observation window.
struct pyramid_kv {
    static constexpr std::string_view name = "pyramid_kv";
    static constexpr std::string_view about =
        "what its base says, with more tokens in low layers than in high ones";

    /// How much more than the last layer the average one keeps, 1 or more: steepness. 20 in the authors' code.
    double beta = 20.0;
    pyramid_rule rule = pyramid_rule::exact;

    static constexpr auto parameters() {
        return parameter_list{
            parameter{"beta", &pyramid_kv::beta, "average over last layer: steepness"},
            parameter{"rule", &pyramid_kv::rule, "exact total, or a published rounding"}};
    }

    /// @throws std::invalid_argument if beta is below 1 or not finite; the published rule takes whole numbers alone
    void validate() const {
        using detail::require;
        require(beta >= 1.0 && beta <= 1e9, "pyramid_kv: beta is ", beta, "; it must be 1 or more");
        require(rule != pyramid_rule::published || beta == std::floor(beta),
                "pyramid_kv: beta is ",
                beta,
                "; the published rule needs a whole number");
    }

    /// Tokens per kv head of each layer, sinks and recent included.
    /// @param tokens  the average over layers
    /// @return [num_layers], with the exact rule of the sum num_layers * tokens.tokens_for(seq_len), each between the
    ///         protected tokens and seq_len
    /// @throws std::invalid_argument from validate() and if the budget does not hold sinks and recent tokens;
    ///         std::bad_alloc
    [[nodiscard]] std::vector<std::size_t>
    layer_tokens(std::size_t num_layers, std::size_t seq_len, const budget& tokens) const {
        validate();
        const std::size_t average = tokens.tokens_for(seq_len);
        const std::size_t always = areas(tokens.protected_areas(), seq_len).num_protected();
        std::vector<std::size_t> counts(num_layers, average);
        if (num_layers < 2 || average >= seq_len) {
            return counts;
        }
        if (rule == pyramid_rule::kvpress) {
            follow_kvpress(tokens.unrounded_for(seq_len), always, seq_len, counts);
        } else if (seq_len >= 2 * (average - always)) {
            const std::size_t most = seq_len - always;
            if (rule == pyramid_rule::published) {
                follow_published(average - always, most, counts);
            } else {
                follow_exact(average - always, most, counts);
            }
            for (std::size_t& count : counts) {
                count += always;
            }
        }
        return counts;
    }

private:
    struct line {
        double first;
        double last;
        double steps;

        [[nodiscard]] double at(std::size_t layer) const noexcept {
            return first - static_cast<double>(layer) * (first - last) / steps;
        }
    };

    [[nodiscard]] line
    line_of(double average, std::size_t most, std::size_t num_layers) const noexcept {
        const auto limit = static_cast<double>(most);
        double last = average / beta;
        double first = 2.0 * average - last;
        if (first >= limit) {
            first = limit;
            last = 2.0 * average - limit;
        }
        return {first, last, static_cast<double>(num_layers - 1)};
    }

    /// @param[out] counts  middle tokens of each layer
    void follow_exact(std::size_t middle, std::size_t most, std::span<std::size_t> counts) const {
        const line slope = line_of(static_cast<double>(middle), most, counts.size());
        std::vector<double> ideal(counts.size());
        for (std::size_t l = 0; l < ideal.size(); ++l) {
            ideal[l] = slope.at(l);
        }
        std::vector<detail::token_fraction> fractions(counts.size());
        detail::round_to_total(ideal, counts.size() * middle, counts, fractions);
    }

    /// @param[out] counts  middle tokens of each layer
    void follow_published(std::size_t middle,
                          std::size_t most,
                          std::span<std::size_t> counts) const noexcept {
        std::size_t last = middle / static_cast<std::size_t>(beta);
        std::size_t first = 2 * middle - last;
        if (first >= most) {
            first = most;
            last = 2 * middle - first;
        }
        const std::size_t step = (first - last) / (counts.size() - 1);
        for (std::size_t l = 0; l < counts.size(); ++l) {
            counts[l] = first - l * step;
        }
    }

    /// The average is not rounded there: 500.5 of 1001 tokens. Halves go to the even number, as Python's do.
    /// @param[out] counts  tokens of each layer, protected ones included
    void follow_kvpress(double average,
                        std::size_t always,
                        std::size_t seq_len,
                        std::span<std::size_t> counts) const noexcept {
        const line slope = line_of(average, seq_len - always, counts.size());
        const bool falls = slope.first <= static_cast<double>(seq_len) &&
                           slope.first >= slope.last && slope.last >= static_cast<double>(always);
        for (std::size_t l = 0; l < counts.size(); ++l) {
            // Too few tokens for a line: even layers.
            const double wanted = std::nearbyint(falls ? slope.at(l) : average);
            counts[l] = (std::clamp)(static_cast<std::size_t>(wanted), always, seq_len);
        }
    }
};

} // namespace v0
} // namespace kvcrush
