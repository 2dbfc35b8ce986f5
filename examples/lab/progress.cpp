// SPDX-License-Identifier: Apache-2.0
#include "progress.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>
#include <unistd.h>
#include <utility>

namespace lab {

progress_bar::progress_bar(std::string what)
    : what_(std::move(what)), is_terminal_(isatty(STDERR_FILENO) == 1) {}

progress_bar::~progress_bar() {
    if (visible_) {
        std::fputs("\r\033[K", stderr); // does not throw, unlike fmt::print
        std::fflush(stderr);
    }
}

void progress_bar::show(double done, double total) {
    using namespace std::chrono_literals;
    const auto now = clock::now();
    if (!is_terminal_ || now - started_ < 2s || now - drawn_ < 100ms || !(total > 0.0)) {
        return;
    }
    constexpr std::size_t width = 30;
    const double share = std::clamp(done / total, 0.0, 1.0);
    const auto filled = static_cast<std::size_t>(share * static_cast<double>(width));
    const double elapsed = std::chrono::duration<double>(now - started_).count();
    fmt::print(stderr,
               "\r\033[K{} [{}{}] {:3.0f} %",
               what_,
               std::string(filled, '#'),
               std::string(width - filled, '.'),
               100.0 * share);
    if (share > 0.02) {
        fmt::print(stderr, "  {:.0f} s left", elapsed / share - elapsed);
    }
    std::fflush(stderr);
    drawn_ = now;
    visible_ = true;
}

} // namespace lab
