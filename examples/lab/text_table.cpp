// SPDX-License-Identifier: Apache-2.0
#include "text_table.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace lab {

std::string aligned(const std::vector<table_line>& lines, std::size_t left) {
    std::vector<std::size_t> widths;
    for (const table_line& cells : lines) {
        widths.resize((std::max)(widths.size(), cells.size()));
        for (std::size_t c = 0; c < cells.size(); ++c) {
            widths[c] = (std::max)(widths[c], cells[c].size());
        }
    }
    std::string table;
    for (const table_line& cells : lines) {
        std::string text;
        for (std::size_t c = 0; c < cells.size(); ++c) {
            text += c < left ? fmt::format("{:<{}}  ", cells[c], widths[c])
                             : fmt::format("{:>{}}  ", cells[c], widths[c]);
        }
        table += text.substr(0, text.find_last_not_of(' ') + 1) + '\n';
    }
    return table;
}

} // namespace lab
