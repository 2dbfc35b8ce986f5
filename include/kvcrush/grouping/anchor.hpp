// SPDX-License-Identifier: Apache-2.0
/// @file
/// The one code that all others are compared with.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/code_word.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>

namespace kvcrush {
inline namespace v0 {

enum class anchor_kind {
    zeros,
    ones,
    /// Bit i is i mod 2.
    alternate,
    /// Drawn from the seed.
    random,
    /// Bit i is set where more than half of the codes set it.
    mean,
    /// Bit i is set where less than half of the codes set it.
    inverse_mean
};

template <>
struct enum_names<anchor_kind> {
    static constexpr std::array values{
        std::pair{std::string_view("zeros"), anchor_kind::zeros},
        std::pair{std::string_view("ones"), anchor_kind::ones},
        std::pair{std::string_view("alternate"), anchor_kind::alternate},
        std::pair{std::string_view("random"), anchor_kind::random},
        std::pair{std::string_view("mean"), anchor_kind::mean},
        std::pair{std::string_view("inverse_mean"), anchor_kind::inverse_mean}};
};

/// Makes the anchor of a set of codes.
/// @note With one bit per head by rank, each head marks exactly a share q of the tokens, so `mean` is all zeros for
///       q <= 0.5 and all ones above: it is `zeros` or `ones` under another name. On the reference model all anchors
///       lie within a few percent of each other.
/// @see  KVCrush, arXiv:2503.00022 (random, mean, alternating); zeros, ones and inverse_mean from the authors' codes.
struct anchor {
    static constexpr std::string_view name = "anchor";

    anchor_kind kind = anchor_kind::zeros;
    std::uint64_t seed = 0;

    static constexpr auto parameters() {
        return std::tuple{parameter{"anchor", &anchor::kind, "code that distances are taken to"},
                          parameter{"seed", &anchor::seed, "of the random anchor"}};
    }
    void validate() const {}

    /// @param[in]  codes     [tokens, words], token-major
    /// @param[in]  num_bits  bits in use; those above it stay 0
    /// @param[out] out       [words]
    template <simd::CodeWord Code>
    void
    make(std::span<const Code> codes, std::size_t num_bits, std::span<Code> out) const noexcept {
        std::fill(out.begin(), out.end(), Code{0});
        const std::size_t num_codes = out.empty() ? 0 : codes.size() / out.size();
        for (std::size_t bit = 0; bit < num_bits; ++bit) {
            const std::size_t word = bit / word_bits<Code>;
            const auto mask = static_cast<Code>(Code{1} << (bit % word_bits<Code>));
            if (is_set(bit, word, mask, codes, out.size(), num_codes)) {
                out[word] = static_cast<Code>(out[word] | mask);
            }
        }
    }

private:
    template <typename Code>
    static constexpr std::size_t word_bits = std::numeric_limits<Code>::digits;

    template <typename Code>
    [[nodiscard]] bool is_set(std::size_t bit,
                              std::size_t word,
                              Code mask,
                              std::span<const Code> codes,
                              std::size_t words,
                              std::size_t num_codes) const noexcept {
        switch (kind) {
        case anchor_kind::zeros: return false;
        case anchor_kind::ones: return true;
        case anchor_kind::alternate: return bit % 2 == 1;
        case anchor_kind::random: return (random_bits(seed, 0, bit) & 1U) != 0;
        case anchor_kind::mean:
        case anchor_kind::inverse_mean: break;
        }
        std::size_t count = 0;
        for (std::size_t i = word; i < codes.size(); i += words) {
            count += (codes[i] & mask) != 0 ? 1U : 0U;
        }
        return kind == anchor_kind::mean ? 2 * count > num_codes : 2 * count < num_codes;
    }
};

} // namespace v0
} // namespace kvcrush
