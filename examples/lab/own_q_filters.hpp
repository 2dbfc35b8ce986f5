// SPDX-License-Identifier: Apache-2.0
/// @file
/// A scorer of the lab's own, and how it joins those that the library knows by name.
#pragma once

#include <kvcrush/core/layer_context.hpp>
#include <kvcrush/retention/q_filters.hpp>
#include <kvcrush/text/catalogue.hpp>

#include <cstddef>
#include <string_view>

#include <vector>

namespace lab {

/// kvcrush::q_filters_scorer with filters that the text itself calibrates: the lab has no other texts at hand. An engine
/// would calibrate once, with many.
struct own_q_filters {
    static constexpr std::string_view name = kvcrush::q_filters_scorer::name;
    static constexpr std::string_view about = kvcrush::q_filters_scorer::about;
    static constexpr bool needs_attention = false;
    static constexpr auto parameters() { return kvcrush::parameter_list{}; }
    void validate() const {}

    /// [num_kv_heads, head_dim], once it is told where it is used.
    std::vector<float> filters{};

    /// All that were asked.
    [[nodiscard]] static std::size_t num_queries(std::size_t seq_len) noexcept { return seq_len; }
    [[nodiscard]] own_q_filters at_layer(const kvcrush::layer_context& where) const;

    template <kvcrush::KvSource Kv>
    void score(const Kv& kv, kvcrush::head_scores scores) const noexcept {
        kvcrush::q_filters_scorer{filters}.score(kv, scores);
    }
};

struct lab_catalogue : kvcrush::catalogue {
    using scorers = kvcrush::extended<kvcrush::catalogue::scorers, own_q_filters>;
};

} // namespace lab
