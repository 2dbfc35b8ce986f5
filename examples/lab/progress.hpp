// SPDX-License-Identifier: Apache-2.0
/// @file
/// A bar on the terminal for work that takes a while.
#pragma once

#include <chrono>
#include <string>

namespace lab {

/// Draws on standard error, only when that is a terminal and the work has taken two seconds; leaves nothing behind.
class progress_bar {
public:
    explicit progress_bar(std::string what);
    progress_bar(const progress_bar&) = delete;
    progress_bar& operator=(const progress_bar&) = delete;
    ~progress_bar();

    /// @param done  out of `total`, any unit
    void show(double done, double total);

private:
    using clock = std::chrono::steady_clock;

    std::string what_;
    clock::time_point started_ = clock::now();
    clock::time_point drawn_{};
    bool is_terminal_;
    bool visible_ = false;
};

} // namespace lab
