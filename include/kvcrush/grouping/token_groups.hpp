// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tokens that look alike share a key: the anchor they are nearest to, and how far away it is.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/hamming.hpp>
#include <kvcrush/simd/hamming_anchors.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// The possible keys of tokens.
///
///     key = nearest anchor * (num_bits + 1) + distance to it        the earlier of two anchors equally near
struct group_keys {
    std::size_t num_bits = 0;
    std::size_t num_anchors = 1;

    [[nodiscard]] constexpr std::size_t keys_per_anchor() const noexcept { return num_bits + 1; }
    [[nodiscard]] constexpr std::size_t num_keys() const noexcept {
        return num_anchors * keys_per_anchor();
    }
    /// Whether a byte holds every key and every distance.
    [[nodiscard]] constexpr bool fit_bytes() const noexcept { return num_keys() <= 256; }
};

[[nodiscard]] constexpr std::size_t group_scratch_bytes(std::size_t num_anchors,
                                                        std::size_t num_tokens) noexcept {
    return num_anchors == 1 ? 0 : scratch::bytes<std::uint16_t>(num_anchors * num_tokens);
}

/// Gives every token its key.
/// @param[in]  anchors  [possible.num_anchors, words]
/// @param[in]  codes    [keys.size(), words]
/// @param[out] keys     one per token
/// @pre possible.fit_bytes() where keys are bytes
template <simd::CodeWord Code, simd::Distance Key>
void group_tokens(std::span<const Code> anchors,
                  std::span<const Code> codes,
                  const group_keys& possible,
                  std::span<Key> keys,
                  scratch memory) noexcept {
    KVCRUSH_ASSERT(sizeof(Key) > 1 || possible.fit_bytes());
    if (possible.num_anchors == 1) {
        simd::hamming_many(anchors, codes, keys);
        return;
    }
    const std::span<Key> distances = memory.take<Key>(possible.num_anchors * keys.size());
    simd::hamming_many_anchors(anchors, possible.num_anchors, codes, distances);
    for (std::size_t t = 0; t < keys.size(); ++t) {
        std::size_t nearest = 0;
        for (std::size_t a = 1; a < possible.num_anchors; ++a) {
            nearest =
                distances[a * keys.size() + t] < distances[nearest * keys.size() + t] ? a : nearest;
        }
        keys[t] = static_cast<Key>(nearest * possible.keys_per_anchor() +
                                   distances[nearest * keys.size() + t]);
    }
}

} // namespace v0
} // namespace kvcrush
