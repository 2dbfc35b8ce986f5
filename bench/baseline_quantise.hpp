// SPDX-License-Identifier: Apache-2.0
/// @file
/// Quantising rows the obvious way, to the block formats of ggml: one block of 32 after the other, one element after the
/// other, as its reference functions do.
#pragma once

#include <cstddef>

namespace kvcrush::bench {

/// @param x    [size], a multiple of 32
/// @param out  34 bytes a block: f16 scale, 32 signed bytes
void quantise_q8_0_plainly(const float* x, std::size_t size, void* out);

/// @param out  18 bytes a block: f16 scale, 32 codes of 4 bits, element j beside element j + 16
void quantise_q4_0_plainly(const float* x, std::size_t size, void* out);

} // namespace kvcrush::bench
