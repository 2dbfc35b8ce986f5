// SPDX-License-Identifier: Apache-2.0
/// @file
/// What work that takes a while says of itself.
#pragma once

#include <chrono>
#include <string>

namespace lab {

/// Writes to standard error. A terminal gets a bar once the work has taken two seconds, and nothing is left of it; a file
/// or a pipe gets a line each minute.
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
