// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sinks and recent tokens of one policy, named as on the command line.
#pragma once

#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/parameter.hpp>

#include <cstddef>
#include <tuple>

namespace lab {

struct area_parameters {
    std::size_t sinks = kvcrush::area_sizes{}.num_sink_tokens;
    std::size_t recent = kvcrush::area_sizes{}.num_recent_tokens;

    static constexpr auto parameters() {
        return std::tuple{
            kvcrush::parameter{"sinks", &area_parameters::sinks, "tokens always kept at the start"},
            kvcrush::parameter{
                "recent", &area_parameters::recent, "tokens always kept at the end"}};
    }
    [[nodiscard]] kvcrush::area_sizes chosen() const { return {sinks, recent}; }
};

} // namespace lab
