// SPDX-License-Identifier: Apache-2.0
/// @file
/// How the rows of a compressed cache are stored.
#pragma once

#include <kvcrush/cache/row_store.hpp>

#include <cstddef>
#include <optional>
#include <vector>

namespace lab {

/// What `+codec(...)` and `+tiered(...)` of a policy say.
struct codec_choice {
    kvcrush::codec_pair sinks;
    /// The most precise first.
    std::vector<kvcrush::codec_pair> tiers;
    /// Share of the kept tokens that goes to the first tier; the others go to the second.
    double first_share = 1.0;
    /// Newest rows that stay dense while a text goes on. Compression itself encodes all rows.
    std::size_t window = 128;
    /// Tokens to keep, whatever the keep ratio of the run: for policies that aim at bytes.
    std::optional<double> keep{};
};

} // namespace lab
