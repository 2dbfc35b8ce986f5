// SPDX-License-Identifier: Apache-2.0
/// @file
/// Policies by name: what the command line can choose, bound to the library's types.
#pragma once

#include <kvcrush/kvcrush.hpp>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <variant>
#include <vector>

namespace lab {

/// Every scorer the lab knows. A new one is one more name here.
using any_scorer = std::variant<kvcrush::random_scorer,
                                kvcrush::streaming_llm_scorer,
                                kvcrush::knorm_scorer,
                                kvcrush::h2o_scorer,
                                kvcrush::snapkv_scorer>;

/// A picker chosen at run time, itself a model of the library's concept.
struct any_picker {
    static constexpr std::string_view name = "pick";
    static constexpr auto parameters() { return std::tuple{}; }
    void validate() const {}

    std::variant<kvcrush::linspace_picker, kvcrush::step_picker, kvcrush::most_important_picker>
        chosen;

    void pick(std::span<const kvcrush::token_index> order,
              std::span<const float> scores,
              std::span<kvcrush::token_index> out) const noexcept {
        std::visit([&](const auto& picker) { picker.pick(order, scores, out); }, chosen);
    }
};

/// A scorer for the bits of the portrait, chosen at run time.
struct any_bits {
    static constexpr std::string_view name = "bits";
    static constexpr bool needs_attention = true;
    static constexpr auto parameters() { return std::tuple{}; }
    void validate() const {}

    std::variant<kvcrush::h2o_scorer, kvcrush::snapkv_scorer> chosen;

    [[nodiscard]] std::size_t scratch_bytes(const kvcrush::problem_size& size) const noexcept {
        return std::visit([&](const auto& scorer) { return scorer.scratch_bytes(size); }, chosen);
    }
    template <kvcrush::KvSource Kv>
    void observe(const Kv& kv,
                 const kvcrush::query_view& queries,
                 kvcrush::head_scores mass,
                 kvcrush::scratch memory) const noexcept {
        std::visit([&](const auto& scorer) { scorer.observe(kv, queries, mass, memory); }, chosen);
    }
    void reduce(kvcrush::const_head_scores mass,
                kvcrush::head_scores scores,
                kvcrush::scratch memory) const noexcept {
        std::visit([&](const auto& scorer) { scorer.reduce(mass, scores, memory); }, chosen);
    }
};

using any_selector = std::variant<kvcrush::top_k_selector,
                                  kvcrush::kvcrush_selector<any_picker>,
                                  kvcrush::kvcrush_selector<any_picker, any_bits>>;

/// One line of an experiment: how a cache is compressed.
struct policy {
    /// As given on the command line.
    std::string text;
    /// Keeps everything: the baseline.
    bool full = false;
    kvcrush::area_sizes areas{};
    any_scorer scorer{};
    any_selector selector{};
};

/// @throws input_error naming what is misspelt or out of range, and what is allowed
[[nodiscard]] policy parse_policy(std::string_view text);

/// A comma-separated list; `all` stands for every policy with its defaults.
/// @throws input_error likewise
[[nodiscard]] std::vector<policy> parse_policies(std::string_view list);

/// One policy of the list that `kvcrush-lab policies` prints.
struct policy_help {
    struct row {
        std::string name;
        std::string value;
        std::string allowed;
        std::string about;
    };
    std::string name;
    std::string about;
    std::vector<row> parameters;
};
[[nodiscard]] std::vector<policy_help> list_policies();

} // namespace lab
