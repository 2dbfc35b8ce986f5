// SPDX-License-Identifier: Apache-2.0
/// @file
/// From the bytes of a model file to its parts. Kept apart from gguf_file so that what must distrust the bytes is
/// in one place.
#pragma once

#include "gguf.hpp"

#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lab {

/// Everything points into the parsed bytes.
struct gguf_contents {
    std::unordered_map<std::string_view, gguf_value> values;
    std::vector<gguf_tensor> tensors;
    std::unordered_map<std::string_view, std::size_t> tensor_index;
};

/// @param[in] file_name  only for messages
/// @throws input_error
[[nodiscard]] gguf_contents parse_gguf(std::span<const std::byte> bytes,
                                       const std::string& file_name);

/// What the specification calls a type; "unknown" for none.
[[nodiscard]] std::string_view name_of(gguf_type type) noexcept;

/// Bytes that one element takes at least: its size, or the length field of a string. 0 for arrays.
[[nodiscard]] std::size_t smallest_size(gguf_type type) noexcept;

} // namespace lab
