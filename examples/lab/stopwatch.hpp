// SPDX-License-Identifier: Apache-2.0
/// @file
/// How long a step took.
#pragma once

#include <chrono>

namespace lab {

/// Runs from the moment it is made.
class stopwatch {
public:
    [[nodiscard]] double milliseconds() const {
        return std::chrono::duration<double, std::milli>(clock::now() - begin_).count();
    }

private:
    using clock = std::chrono::steady_clock;
    clock::time_point begin_ = clock::now();
};

} // namespace lab
