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
    if (!(total > 0.0) || now - started_ < (is_terminal_ ? 2s : 60s) ||
        now - drawn_ < (is_terminal_ ? clock::duration(100ms) : clock::duration(60s))) {
        return;
    }
    const double share = std::clamp(done / total, 0.0, 1.0);
    const double elapsed = std::chrono::duration<double>(now - started_).count();
    std::string line = what_;
    if (is_terminal_) {
        constexpr std::size_t width = 30;
        const auto filled = static_cast<std::size_t>(share * static_cast<double>(width));
        line += fmt::format(" [{}{}]", std::string(filled, '#'), std::string(width - filled, '.'));
    }
    line += fmt::format(" {:3.0f} %", 100.0 * share);
    if (share > 0.02) {
        line += fmt::format("  {:.0f} s left", elapsed / share - elapsed);
    }
    if (is_terminal_) {
        fmt::print(stderr, "\r\033[K{}", line);
        visible_ = true;
    } else {
        fmt::print(stderr, "{}\n", line);
    }
    std::fflush(stderr);
    drawn_ = now;
}

} // namespace lab
