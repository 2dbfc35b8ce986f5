// SPDX-License-Identifier: Apache-2.0
/// @file
/// Budgets by what a head changes: profiled once per model, free at run time.
#pragma once

#include <kvcrush/allocation/head_counts.hpp>
#include <kvcrush/allocation/head_profile.hpp>
#include <kvcrush/allocation/largest_remainder.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// How much a step changes a vector: 1 - cos(before, after), from 0 (same direction) to 2 (opposite).
/// @return NaN where a vector is 0 or holds numbers that are not finite: it has no direction
/// @pre  before.size() == after.size()
[[nodiscard]] inline double direction_change(std::span<const float> before,
                                             std::span<const float> after) noexcept {
    KVCRUSH_ASSERT(before.size() == after.size());
    double product = 0.0;
    double before_squared = 0.0;
    double after_squared = 0.0;
    for (std::size_t i = 0; i < (std::min)(before.size(), after.size()); ++i) {
        const double x = static_cast<double>(before[i]);
        const double y = static_cast<double>(after[i]);
        product += x * y;
        before_squared += x * x;
        after_squared += y * y;
    }
    const double cosine = product / (std::sqrt(before_squared) * std::sqrt(after_squared));
    return 1.0 - (std::clamp)(cosine, -1.0, 1.0); // clamp passes NaN on
}

/// What stands for the query heads of a kv head.
enum class group_importance { mean, max };

template <>
struct enum_names<group_importance> {
    static constexpr named_value<group_importance> values[] = {{"mean", group_importance::mean},
                                                               {"max", group_importance::max}};
};

/// Watches a few prompts and says how important each kv head is.
///
///     baklava_profiler watch(num_layers, num_q_heads);
///     for each prompt, layer l, token:
///         watch.add_head(l, h, slice of the normalised hidden state for head h, output of head h)   // each query head
///         watch.add_layer(l, hidden state before attention, after attention was added)
///     watch.profile(num_kv_heads).save(file);
///
///     importance[l, h] = mean over tokens of direction_change(input, output)
///     factor[l]        = mean over tokens of direction_change(before, after)
/// @see BaKlaVa, arXiv:2502.13176. The paper confirms the cosine of a head's input and output, the groups and a proxy
///      for layers; the formulas here are our reading of it. A profile holds for its model, data type and kind of
///      prompt.
class baklava_profiler {
public:
    /// @throws std::invalid_argument if there are too many heads; std::bad_alloc
    baklava_profiler(std::size_t num_layers, std::size_t num_q_heads) : num_q_heads_(num_q_heads) {
        detail::require(num_layers <= head_profile::max_heads &&
                            num_q_heads <=
                                head_profile::max_heads / (std::max)(num_layers, std::size_t{1}),
                        "baklava_profiler: ",
                        num_layers,
                        " layers of ",
                        num_q_heads,
                        " query heads; no more than ",
                        head_profile::max_heads,
                        " heads together are allowed");
        heads_.resize(num_layers * num_q_heads);
        layers_.resize(num_layers);
    }

    /// One token of one query head; left out where direction_change() is NaN.
    void add_head(std::size_t layer,
                  std::size_t q_head,
                  std::span<const float> input,
                  std::span<const float> output) noexcept {
        KVCRUSH_ASSERT(layer < layers_.size() && q_head < num_q_heads_);
        heads_[layer * num_q_heads_ + q_head].add(direction_change(input, output));
    }

    /// One token of one layer.
    void add_layer(std::size_t layer,
                   std::span<const float> before,
                   std::span<const float> after) noexcept {
        KVCRUSH_ASSERT(layer < layers_.size());
        layers_[layer].add(direction_change(before, after));
    }

    /// The profile so far. Heads that saw nothing get importance 0; if no layer saw anything, all factors are 1.
    /// @throws std::invalid_argument if the query heads do not divide into kv heads; std::bad_alloc
    [[nodiscard]] head_profile profile(std::size_t num_kv_heads,
                                       group_importance group = group_importance::mean) const {
        detail::require(num_kv_heads > 0 ? num_q_heads_ % num_kv_heads == 0 : num_q_heads_ == 0,
                        "baklava_profiler: num_q_heads is ",
                        num_q_heads_,
                        "; it must be a multiple of num_kv_heads (",
                        num_kv_heads,
                        ")");
        const std::size_t size = num_kv_heads == 0 ? 0 : num_q_heads_ / num_kv_heads;
        std::vector<double> heads(layers_.size() * num_kv_heads);
        std::uint64_t samples = 0;
        for (std::size_t i = 0; i < heads_.size(); ++i) {
            double& head = heads[i / size];
            head = group == group_importance::max
                       ? (std::max)(head, heads_[i].mean())
                       : head + heads_[i].mean() / static_cast<double>(size);
            samples = (std::max)(samples, heads_[i].count);
        }
        std::vector<double> factors(layers_.size(), 1.0);
        if (std::any_of(layers_.begin(), layers_.end(), [](const running_mean& layer) {
                return layer.count > 0;
            })) {
            std::transform(layers_.begin(),
                           layers_.end(),
                           factors.begin(),
                           [](const running_mean& layer) { return layer.mean(); });
        }
        return head_profile(
            {layers_.size(), num_kv_heads}, std::move(heads), std::move(factors), samples);
    }

private:
    struct running_mean {
        double sum = 0.0;
        std::uint64_t count = 0;

        void add(double value) noexcept {
            if (!std::isnan(value)) {
                sum += value;
                ++count;
            }
        }
        [[nodiscard]] double mean() const noexcept {
            return count == 0 ? 0.0 : sum / static_cast<double>(count);
        }
    };

    std::size_t num_q_heads_;
    std::vector<running_mean> heads_;
    std::vector<running_mean> layers_;
};

enum class baklava_form {
    /// Every head in proportion to its weight.
    proportional,
    /// The most important heads gain what the least important lose; those between keep the average.
    two_classes
};

template <>
struct enum_names<baklava_form> {
    static constexpr named_value<baklava_form> values[] = {
        {"proportional", baklava_form::proportional}, {"two_classes", baklava_form::two_classes}};
};

/// Gives the heads of a model tokens by their profile. With b middle tokens per head on average:
///
///     weight       = importance[l, h]^head_power * factor[l]^layer_power
///     proportional   floor(floor * b) each, the rest in proportion to weight, none more than the sequence
///     two_classes    the `high` part of the heads gets b * (1 + gain), the `low` part pays for it in equal shares,
///                    none falling below floor(floor * b): where they cannot pay, the others gain less
///
/// Both have the exact total, by largest remainder. Use the counts with fixed_counts, under any scorer and selector.
/// @see BaKlaVa, arXiv:2502.13176; which parameters are best for a model is a search over perplexity:
///      baklava_search(). The paper does not give formulas: these are ours.
struct baklava {
    static constexpr std::string_view name = "baklava";
    static constexpr std::string_view about =
        "what its base says, with more tokens in heads that turn their input most";

    baklava_form form = baklava_form::proportional;
    /// Powers of the importance of a head and of the factor of its layer, not negative.
    double head_power = 1.0;
    double layer_power = 1.0;
    /// Part of the average that every head keeps at least, in [0, 1].
    double floor = 0.2;
    /// two_classes: the parts of all heads that gain and lose, in [0, 1], 1 together at most, and how much the first
    /// gain.
    double high = 0.25;
    double low = 0.25;
    double gain = 0.5;

    static constexpr auto parameters() {
        return parameter_list{
            parameter{"form", &baklava::form, "proportional or two_classes"},
            parameter{"head_power", &baklava::head_power, "power of a head's importance"},
            parameter{"layer_power", &baklava::layer_power, "power of a layer's factor"},
            parameter{"floor", &baklava::floor, "part of the average that every head keeps"},
            parameter{"high", &baklava::high, "part of the heads that gain (two_classes)"},
            parameter{"low", &baklava::low, "part of the heads that lose (two_classes)"},
            parameter{"gain", &baklava::gain, "what they gain, over the average (two_classes)"}};
    }

    /// @throws std::invalid_argument if a parameter is out of range
    void validate() const {
        using detail::require;
        const auto unit = [](double x) { return x >= 0.0 && x <= 1.0; };
        const auto power = [](double x) { return x >= 0.0 && x <= 100.0; };
        require(
            power(head_power), "baklava: head_power is ", head_power, "; it must lie in [0, 100]");
        require(power(layer_power),
                "baklava: layer_power is ",
                layer_power,
                "; it must lie in [0, 100]");
        require(unit(floor), "baklava: floor is ", floor, "; it must lie in [0, 1]");
        require(unit(high) && unit(low) && high + low <= 1.0,
                "baklava: high is ",
                high,
                " and low is ",
                low,
                "; each must lie in [0, 1], and so must their sum");
        require(power(gain), "baklava: gain is ", gain, "; it must lie in [0, 100]");
    }

    /// @param tokens  the average over all heads
    /// @throws std::invalid_argument from validate(), if the profile was made for another model, or if the budget does
    ///         not hold sinks and recent tokens; std::bad_alloc
    [[nodiscard]] head_counts counts(const head_profile& profile,
                                     const model_heads& model,
                                     std::size_t seq_len,
                                     const budget& tokens) const {
        validate();
        profile.require_made_for(model);
        const std::size_t average = tokens.tokens_for(seq_len);
        const std::size_t always = areas(tokens.protected_areas(), seq_len).num_protected();
        const std::size_t middle = average - always;
        const auto lowest = static_cast<std::size_t>(floor * static_cast<double>(middle));
        const std::vector<double> weights = weights_of(profile);
        std::vector<std::size_t> counts(weights.size(), middle);
        if (form == baklava_form::two_classes) {
            move_to_important(weights, middle, lowest, seq_len - always, counts);
        } else {
            share_out(weights, middle * weights.size(), lowest, seq_len - always, counts);
        }
        for (std::size_t& count : counts) {
            count += always;
        }
        return head_counts(model, std::move(counts));
    }

    friend bool operator==(const baklava&, const baklava&) = default;

private:
    /// Both factors are scaled by their largest, so that no power overflows.
    [[nodiscard]] std::vector<double> weights_of(const head_profile& profile) const {
        const auto largest = [](std::span<const double> values) {
            const double most =
                values.empty() ? 0.0 : *std::max_element(values.begin(), values.end());
            return most > 0.0 ? most : 1.0;
        };
        const double head_scale = largest(profile.heads());
        const double layer_scale = largest(profile.layers());
        std::vector<double> weights(profile.heads().size());
        for (std::size_t i = 0; i < weights.size(); ++i) {
            const double factor = profile.layers()[i / profile.model().num_kv_heads];
            weights[i] = std::pow(profile.heads()[i] / head_scale, head_power) *
                         std::pow(factor / layer_scale, layer_power);
        }
        return weights;
    }

    void move_to_important(std::span<const double> weights,
                           std::size_t middle,
                           std::size_t lowest,
                           std::size_t most,
                           std::span<std::size_t> counts) const {
        const auto part = [&](double share) {
            return static_cast<std::size_t>(share * static_cast<double>(weights.size()));
        };
        const std::size_t num_high = part(high);
        const std::size_t num_low = part(low);
        if (num_high == 0 || num_low == 0) {
            return;
        }
        std::vector<std::size_t> order(weights.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
            return weights[a] > weights[b];
        });
        const auto wanted = static_cast<std::size_t>(gain * static_cast<double>(middle)) * num_high;
        const std::size_t moved =
            (std::min)({wanted, (most - middle) * num_high, (middle - lowest) * num_low});
        const auto spread = [&](std::span<const std::size_t> heads, auto change) {
            for (std::size_t i = 0; i < heads.size();
                 ++i) { // equal shares: the remainder goes first
                const std::size_t each =
                    moved / heads.size() + (i < moved % heads.size() ? 1U : 0U);
                counts[heads[i]] = change(counts[heads[i]], each);
            }
        };
        spread(std::span(order).first(num_high), std::plus<std::size_t>{});
        spread(std::span(order).last(num_low), std::minus<std::size_t>{});
    }
};

/// What a search found.
struct baklava_search_result {
    baklava best;
    /// What the callback said about it.
    double loss = std::numeric_limits<double>::infinity();
};

/// Tries candidates and keeps the one of the lowest loss; of equal ones the first. A loss that is NaN loses.
///
///     const auto candidates = baklava_grid(baklava{}, powers, powers);
///     const auto found = baklava_search(candidates, [&](const baklava& candidate) {
///         return perplexity(candidate.counts(profile, model, seq_len, tokens));      // the engine runs its model
///     });
/// @throws std::invalid_argument if there is no candidate or no loss is a number; whatever the callback throws
template <typename Loss>
    requires std::invocable<Loss&, const baklava&> &&
        std::convertible_to < std::invoke_result_t<Loss&, const baklava&>,
double > [[nodiscard]] baklava_search_result baklava_search(std::span<const baklava> candidates,
                                                            Loss&& loss) {
    detail::require(!candidates.empty(), "baklava_search: there is no candidate");
    for (const baklava& candidate : candidates) {
        candidate.validate();
    }
    baklava_search_result found;
    bool any = false;
    for (const baklava& candidate : candidates) {
        const double value = static_cast<double>(loss(candidate));
        if (!std::isnan(value) && (!any || value < found.loss)) {
            found = {candidate, value};
            any = true;
        }
    }
    detail::require(any,
                    "baklava_search: none of ",
                    candidates.size(),
                    " candidates has a loss that is a number");
    return found;
}

/// Every combination of powers, the powers of layers changing fastest.
[[nodiscard]] inline std::vector<baklava> baklava_grid(const baklava& start,
                                                       std::span<const double> head_powers,
                                                       std::span<const double> layer_powers) {
    std::vector<baklava> candidates;
    for (const double head_power : head_powers) {
        for (const double layer_power : layer_powers) {
            baklava candidate = start;
            candidate.head_power = head_power;
            candidate.layer_power = layer_power;
            candidates.push_back(candidate);
        }
    }
    return candidates;
}

} // namespace v0
} // namespace kvcrush
