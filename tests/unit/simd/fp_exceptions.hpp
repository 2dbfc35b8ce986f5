// SPDX-License-Identifier: Apache-2.0
/// @file
/// Which floating-point exceptions some work raises.
#pragma once

#include <cfenv>

namespace kvcrush::reference {

/// Invalid operations, divisions by zero and overflows; losing digits is no exception worth a trap.
template <typename Work>
[[nodiscard]] int raised_exceptions(const Work& work) {
    std::feclearexcept(FE_ALL_EXCEPT);
    work();
    return std::fetestexcept(FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW);
}

} // namespace kvcrush::reference
