// SPDX-License-Identifier: Apache-2.0
#include "error.hpp"
#include "text_table.hpp"

#include <gtest/gtest.h>

#include <string>

namespace lab {
namespace {

TEST(TextTable, LinesColumnsUp) {
    EXPECT_EQ(aligned({{"name", "n"}, {"a", "12"}}, 1), "name   n\na     12\n");
}

TEST(TextTable, NamesCannotBreakIt) {
    EXPECT_EQ(aligned({{"text", "n"}, {"a\nb\x1B[2J", "1"}}, 1),
              "text           n\na\\x0ab\\x1b[2J  1\n");
}

TEST(Printable, KeepsEveryScript) {
    const std::string text = "a \u00E9 \u4E2D \u00A0\"\\";
    EXPECT_EQ(printable(text), text);
    EXPECT_EQ(printable("\t\x7F\xC2\x9B"
                        "2J"),
              "\\x09\\x7f\xC2\\x9b"
              "2J");
}

} // namespace
} // namespace lab
