// SPDX-License-Identifier: Apache-2.0
/// @file
/// The rotation that llama.cpp applies to rows of quantised caches, and to the queries that meet them.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>

namespace client {

/// Multiplies each block of channels by the orthonormal Walsh-Hadamard matrix, which is its own inverse.
/// @param block  channels turned together, a power of two that divides rows.size(); 0 or 1 does nothing
inline void hadamard(std::span<float> rows, std::size_t block) noexcept {
    if (block < 2) {
        return;
    }
    const float scale = 1.0F / std::sqrt(static_cast<float>(block));
    for (std::size_t first = 0; first < rows.size(); first += block) {
        float* const x = rows.data() + first;
        for (std::size_t half = 1; half < block; half *= 2) {
            for (std::size_t i = 0; i < block; i += 2 * half) {
                for (std::size_t j = i; j < i + half; ++j) {
                    const float a = x[j];
                    const float b = x[j + half];
                    x[j] = a + b;
                    x[j + half] = a - b;
                }
            }
        }
        for (std::size_t j = 0; j < block; ++j) {
            x[j] *= scale;
        }
    }
}

} // namespace client
