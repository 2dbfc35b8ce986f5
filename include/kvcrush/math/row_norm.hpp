// SPDX-License-Identifier: Apache-2.0
/// @file
/// The length of a key of any element type and stride.
#pragma once

#include <kvcrush/core/row_view.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/convert.hpp>
#include <kvcrush/simd/norm.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// Sum of the squares of a row, in fp32.
template <Element T>
[[nodiscard]] float squared_norm(const row_view<T>& row) noexcept {
    if constexpr (std::is_same_v<std::remove_const_t<T>, float>) {
        if (row.contiguous()) {
            return simd::squared_norm(std::span<const float>(row.elements()));
        }
    }
    std::array<float, 256> buffer;
    float sum = 0.0F;
    for (std::size_t begin = 0; begin < row.size(); begin += buffer.size()) {
        const std::span<float> part(buffer.data(), (std::min)(buffer.size(), row.size() - begin));
        if (row.contiguous()) {
            simd::to_float(
                std::span<const std::remove_const_t<T>>(row.elements()).subspan(begin, part.size()),
                part);
        } else {
            for (std::size_t i = 0; i < part.size(); ++i) {
                part[i] = to_float(row[begin + i]);
            }
        }
        sum += simd::squared_norm(part);
    }
    return sum;
}

} // namespace v0
} // namespace kvcrush
