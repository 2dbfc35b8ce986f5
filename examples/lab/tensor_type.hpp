// SPDX-License-Identifier: Apache-2.0
/// @file
/// How the numbers of a GGUF tensor are stored: which block of bytes holds how many of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace lab {

/// The storage types that the lab reads. Values as in the file.
enum class tensor_type : std::uint32_t { f32 = 0, f16 = 1, q4_0 = 2, q4_1 = 3, q8_0 = 8 };

inline constexpr std::string_view supported_tensor_types = "F32, F16, Q8_0, Q4_0, Q4_1";

struct block_layout {
    std::size_t elements; ///< numbers in one block
    std::size_t bytes;    ///< size of one block
};

[[nodiscard]] constexpr block_layout layout_of(tensor_type type) noexcept {
    switch (type) {
    case tensor_type::f32: return {1, 4};
    case tensor_type::f16: return {1, 2};
    case tensor_type::q4_0: return {32, 18}; // f16 scale, 16 bytes of two numbers each
    case tensor_type::q4_1: return {32, 20}; // f16 scale, f16 minimum, 16 bytes
    case tensor_type::q8_0: return {32, 34}; // f16 scale, 32 bytes
    }
    return {1, 0};
}

/// @return nothing for a type that the lab does not read
[[nodiscard]] constexpr std::optional<tensor_type> to_tensor_type(std::uint32_t value) noexcept {
    switch (value) {
    case 0: return tensor_type::f32;
    case 1: return tensor_type::f16;
    case 2: return tensor_type::q4_0;
    case 3: return tensor_type::q4_1;
    case 8: return tensor_type::q8_0;
    default: return std::nullopt;
    }
}

/// What ggml calls a type, so that an error can say which one a file uses.
[[nodiscard]] constexpr std::string_view ggml_name_of(std::uint32_t value) noexcept {
    constexpr std::array<std::string_view, 31> names = {
        "F32",     "F16",    "Q4_0",    "Q4_1",  "Q4_2",   "Q4_3",  "Q5_0",  "Q5_1",
        "Q8_0",    "Q8_1",   "Q2_K",    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "Q8_K",
        "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS",
        "I8",      "I16",    "I32",     "I64",   "F64",    "IQ1_M", "BF16"};
    return value < names.size() ? names[value] : "unknown";
}

} // namespace lab
