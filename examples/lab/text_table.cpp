// SPDX-License-Identifier: Apache-2.0
#include "text_table.hpp"

#include "error.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace lab {

std::string aligned(std::vector<table_line> lines, std::size_t left) {
    for (table_line& cells : lines) {
        for (std::string& cell : cells) {
            cell = printable(cell); // names of files stand in tables
        }
    }
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
