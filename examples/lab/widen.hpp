// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rows of an f16 cache as floats, fast enough to be done anew for every token.
#pragma once

#include <kvcrush/core/types.hpp>

#include <cstddef>

namespace lab {

/// @param[out] to  `count` floats, exact: every f16 is one
/// @note  F16C where the CPU has it, whatever the build flags; the same bits without (NaN stays some NaN)
void widen(const kvcrush::f16* from, std::size_t count, float* to) noexcept;

} // namespace lab
