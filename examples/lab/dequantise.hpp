// SPDX-License-Identifier: Apache-2.0
/// @file
/// Stored weights back to floats.
#pragma once

#include "tensor_type.hpp"

#include <cstddef>
#include <span>

namespace lab {

/// Writes the floats that whole blocks stand for.
///
///     F32, F16: the number itself      Q8_0: d * q, q signed      Q4_0: d * (q - 8)      Q4_1: d * q + m
///
/// Four-bit blocks hold elements 0..15 in the low halves of their bytes and 16..31 in the high halves.
/// @param[in]  blocks  as in the file, any alignment
/// @param[out] floats  one float per stored number
/// @pre  floats.size() is a multiple of the block's elements, and blocks.size() the bytes of so many blocks
void dequantise(tensor_type type,
                std::span<const std::byte> blocks,
                std::span<float> floats) noexcept;

/// Neither NaN nor infinity is stored: of blocks of integers only the scales and minima are looked at.
/// @param blocks  whole ones, any alignment
[[nodiscard]] bool all_finite(tensor_type type, std::span<const std::byte> blocks) noexcept;

} // namespace lab
