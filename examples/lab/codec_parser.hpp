// SPDX-License-Identifier: Apache-2.0
/// @file
/// The second half of `X+codec(...)` and `X+tiered(...)`: how kept rows are stored.
#pragma once

#include "codec_choice.hpp"
#include "policy_help.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lab {

/// "h2o+codec(k=q8_0,v=q4_0)" -> "h2o" and "codec(k=q8_0,v=q4_0)"; nothing behind for other policies.
[[nodiscard]] std::pair<std::string, std::optional<std::string>>
split_codec(std::string_view policy);

/// @throws input_error naming what is misspelt or out of range, and what is allowed
[[nodiscard]] codec_choice parse_codec_choice(std::string_view text);

/// Policies that aim at bytes, four_times(seed=0) and so on, written out; other text as it is.
/// @throws input_error likewise
[[nodiscard]] std::string expand_preset(std::string_view policy);
[[nodiscard]] std::vector<std::string_view> preset_names();

[[nodiscard]] std::vector<policy_help> list_codecs();

} // namespace lab
