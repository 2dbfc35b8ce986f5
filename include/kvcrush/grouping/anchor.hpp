// SPDX-License-Identifier: Apache-2.0
/// @file
/// The code, or the few codes, that all others are compared with.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/bit_totals.hpp>
#include <kvcrush/simd/code_word.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

enum class anchor_kind {
    /// What the signature itself calls its middle: zeros for bits of heads, the sign of each channel's mean for bits
    /// of keys.
    own,
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
    static constexpr named_value<anchor_kind> values[] = {
        {"own", anchor_kind::own},
        {"zeros", anchor_kind::zeros},
        {"ones", anchor_kind::ones},
        {"alternate", anchor_kind::alternate},
        {"random", anchor_kind::random},
        {"mean", anchor_kind::mean},
        {"inverse_mean", anchor_kind::inverse_mean}};
};

/// Makes the anchor of a set of codes.
/// @note With one bit per head by rank, each head marks exactly a share q of the tokens, so `mean` is all zeros for
///       q <= 0.5 and all ones above: it is `zeros` or `ones` under another name. It says something only where bits
///       depend on more than the head: portraits of pages, and of keys. For an anchor of the crowd take key signs.
///       On the reference model all anchors lie within a few percent of each other, and several are no better.
/// @see  KVCrush, arXiv:2503.00022 (random, mean, alternating); zeros, ones and inverse_mean from the authors' codes.
struct anchor {
    static constexpr std::string_view name = "anchor";

    anchor_kind kind = anchor_kind::own;
    std::uint64_t seed = 0;
    /// Anchors in use, 1 to 8. Of several, a token belongs to the nearest one. The first is of `kind`, the second its
    /// complement, all others are drawn from the seed; with `random` all are.
    std::size_t count = 1;

    static constexpr std::size_t max_count = 8;

    static constexpr auto parameters() {
        return parameter_list{
            parameter{"anchor", &anchor::kind, "code that distances are taken to"},
            parameter{"seed", &anchor::seed, "of random anchors"},
            parameter{"anchors", &anchor::count, "how many, 1 to 8: the nearest one counts"}};
    }
    /// @throws std::invalid_argument if count lies outside [1, 8]
    void validate() const {
        detail::require(count >= 1 && count <= max_count,
                        "anchor: the number of anchors is ",
                        count,
                        "; it must lie in [1, ",
                        max_count,
                        "]");
    }

    /// Bit i of the first anchor, for the kinds that do not depend on the codes; 0 for the others.
    [[nodiscard]] constexpr bool bit(std::size_t i) const noexcept {
        return kind == anchor_kind::ones || (kind == anchor_kind::alternate && i % 2 == 1) ||
               (kind == anchor_kind::random && (random_bits(seed, 0, i) & 1U) != 0);
    }

    /// Makes the first anchor; `own` is all zeros here.
    /// @param[in]  codes     [tokens, words], token-major
    /// @param[in]  num_bits  bits in use; those above it stay 0
    /// @param[out] out       [words]
    template <simd::CodeWord Code>
    void
    make(std::span<const Code> codes, std::size_t num_bits, std::span<Code> out) const noexcept {
        if (kind == anchor_kind::mean || kind == anchor_kind::inverse_mean) {
            make_mean(codes, num_bits, out);
        } else {
            fill(num_bits, out, [&](std::size_t i, std::size_t, Code) { return bit(i); });
        }
    }

    /// Makes the others from the first.
    /// @param[in]  num_bits  bits in use
    /// @param      anchors   [count, words]; the first is read, the others are written
    template <simd::CodeWord Code>
    void make_others(std::size_t num_bits, std::span<Code> anchors) const noexcept {
        const std::size_t words = anchors.size() / count;
        for (std::size_t i = 1; i < count; ++i) {
            const bool complement = i == 1 && kind != anchor_kind::random;
            fill(num_bits,
                 anchors.subspan(i * words, words),
                 [&](std::size_t bit, std::size_t word, Code mask) {
                     return complement ? (anchors[word] & mask) == 0
                                       : (random_bits(seed, i, bit) & 1U) != 0;
                 });
        }
    }

private:
    template <typename Code>
    static constexpr std::size_t word_bits = std::numeric_limits<Code>::digits;

    template <typename Code, typename IsSet>
    static void fill(std::size_t num_bits, std::span<Code> out, const IsSet& set) noexcept {
        std::fill(out.begin(), out.end(), Code{0});
        for (std::size_t bit = 0; bit < num_bits; ++bit) {
            const std::size_t word = bit / word_bits<Code>;
            const auto mask = static_cast<Code>(Code{1} << (bit % word_bits<Code>));
            if (set(bit, word, mask)) {
                out[word] = static_cast<Code>(out[word] | mask);
            }
        }
    }

    template <typename Code>
    void make_mean(std::span<const Code> codes,
                   std::size_t num_bits,
                   std::span<Code> out) const noexcept {
        std::fill(out.begin(), out.end(), Code{0});
        const std::size_t num_codes = out.empty() ? 0 : codes.size() / out.size();
        for (std::size_t word = 0; word < out.size(); ++word) {
            const auto totals = simd::bit_totals(codes, word, out.size());
            for (std::size_t i = 0; i < totals.size() && word * word_bits<Code> + i < num_bits;
                 ++i) {
                const std::uint64_t twice = std::uint64_t{2} * totals[i];
                if (kind == anchor_kind::mean ? twice > num_codes : twice < num_codes) {
                    out[word] = static_cast<Code>(out[word] | Code{1} << i);
                }
            }
        }
    }
};

} // namespace v0
} // namespace kvcrush
