// SPDX-License-Identifier: Apache-2.0
/// @file
/// Byte-pair encoding of one piece of text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace lab {

/// The learnt merges: which two neighbouring tokens become one, and which pair goes first.
class byte_pairs {
public:
    /// The earlier a pair is added, the earlier it is merged. A pair added twice keeps its first place.
    void add(int left, int right, int merged);

    /// Merges, again and again, the leftmost of the earliest pairs, until no pair is left.
    /// @param[in,out] tokens  the piece, one token per byte before, the result after
    /// @note  O(n log n) in the length of the piece
    void merge(std::vector<int>& tokens) const;

private:
    struct rule {
        std::uint32_t rank;
        int merged;
    };
    [[nodiscard]] const rule* find(int left, int right) const noexcept;

    std::unordered_map<std::uint64_t, rule> rules_;
};

} // namespace lab
