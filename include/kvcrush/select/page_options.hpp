// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a page selector can be asked for.
#pragma once

#include <kvcrush/core/parameter.hpp>

#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Which heads keep which pages.
enum class page_table {
    /// Each kv head its own pages: needs a block table per head to free them.
    per_head,
    /// All kv heads the same pages, by the sum of their scores.
    shared
};

template <>
struct enum_names<page_table> {
    static constexpr named_value<page_table> values[] = {{"per_head", page_table::per_head},
                                                         {"shared", page_table::shared}};
};

/// What the portrait of a page is made of.
enum class page_bits {
    /// A bit per slot and kv head, set in the better half of the head's middle tokens.
    per_head,
    /// A bit per slot, by the scores summed over the heads.
    summed,
    /// The same, but the better half only of the tokens that no important page holds. One table for all heads.
    summed_rest
};

template <>
struct enum_names<page_bits> {
    static constexpr named_value<page_bits> values[] = {{"per_head", page_bits::per_head},
                                                        {"summed", page_bits::summed},
                                                        {"summed_rest", page_bits::summed_rest}};
};

/// What one bit of the anchor stands for.
enum class anchor_span {
    /// One bit of the portrait.
    bit,
    /// All bits of one page: bit i of the anchor is compared with every bit of page i.
    page
};

template <>
struct enum_names<anchor_span> {
    static constexpr named_value<anchor_span> values[] = {{"bit", anchor_span::bit},
                                                          {"page", anchor_span::page}};
};

} // namespace v0
} // namespace kvcrush
