// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/hamming_anchors.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "../../reference/hamming.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

namespace {

namespace simd = kvcrush::simd;
namespace reference = kvcrush::reference;

static_assert(noexcept(simd::hamming_many_anchors<std::uint8_t, std::uint8_t>({}, 0, {}, {})));

template <typename Code, typename Out>
void compare_with_reference(std::size_t bits,
                            std::size_t num_anchors,
                            std::size_t num_codes,
                            simd::isa rung) {
    constexpr std::size_t unit = 8 * sizeof(Code);
    constexpr unsigned limit = static_cast<Out>(~Out{0});
    const std::size_t words = (bits + unit - 1) / unit;
    reference::guarded_buffer<Code> anchors(words * num_anchors);
    reference::guarded_buffer<Code> codes(words * num_codes);
    reference::guarded_buffer<Out> out(num_anchors * num_codes);
    const std::size_t last_bits = bits - (words - 1) * unit;
    for (std::size_t i = 0; i < words * (num_anchors + num_codes); ++i) {
        const std::uint64_t used =
            i % words + 1 == words && last_bits < 64 ? (1ULL << last_bits) - 1 : ~0ULL;
        // Now and then nothing but ones or zeros: the ends of the range.
        const std::size_t row = i / words;
        const std::uint64_t value = row % 5 == 3   ? ~std::uint64_t{0}
                                    : row % 5 == 4 ? 0
                                                   : kvcrush::random_bits(bits, num_codes, i);
        const auto code = static_cast<Code>(value & used);
        (row < num_anchors ? anchors[i] : codes[i - words * num_anchors]) = code;
    }
    simd::hamming_many_anchors<Code, Out>(
        anchors.span(), num_anchors, codes.span(), out.span(), rung);
    for (std::size_t a = 0; a < num_anchors; ++a) {
        const std::vector<unsigned> expected = reference::hamming_many<Code>(
            anchors.span().subspan(a * words, words), codes.span(), num_codes);
        for (std::size_t i = 0; i < num_codes; ++i) {
            ASSERT_EQ((std::min)(expected[i], limit), out[a * num_codes + i])
                << bits << " bits, anchor " << a << " of " << num_anchors << ", code " << i
                << " of " << num_codes;
        }
    }
}

template <typename Code>
void compare_outputs(std::size_t bits, std::size_t num_codes, simd::isa rung) {
    for (std::size_t num_anchors = 1; num_anchors <= 9; ++num_anchors) {
        compare_with_reference<Code, std::uint8_t>(bits, num_anchors, num_codes, rung);
        compare_with_reference<Code, std::uint16_t>(bits, num_anchors, num_codes, rung);
    }
}

class HammingAnchors : public reference::every_rung {};

TEST_P(HammingAnchors, EqualTheReferenceForCodesOfOneUnit) {
    for (const std::size_t n : std::initializer_list<std::size_t>{
             0U, 1U, 7U, 8U, 31U, 32U, 33U, 63U, 64U, 65U, 127U, 129U, 300U}) {
        compare_outputs<std::uint8_t>(1, n, rung());
        compare_outputs<std::uint8_t>(8, n, rung());
        compare_outputs<std::uint16_t>(12, n, rung());
        compare_outputs<std::uint32_t>(32, n, rung());
        compare_outputs<std::uint64_t>(64, n, rung());
    }
}

TEST_P(HammingAnchors, EqualTheReferenceAtEveryNumberOfWords) {
    for (std::size_t words = 2; words <= 64; ++words) {
        for (const std::size_t n : std::initializer_list<std::size_t>{1U, 7U, 9U, 33U, 66U}) {
            for (const std::size_t num_anchors : std::initializer_list<std::size_t>{1U, 3U, 4U}) {
                compare_with_reference<std::uint64_t, std::uint8_t>(
                    64 * words - words % 62, num_anchors, n, rung());
                compare_with_reference<std::uint64_t, std::uint16_t>(
                    64 * words, num_anchors, n, rung());
            }
        }
    }
}

TEST_P(HammingAnchors, EqualTheReferenceAcrossTiles) {
    compare_with_reference<std::uint8_t, std::uint8_t>(8, 5, 20001, rung());
    compare_with_reference<std::uint32_t, std::uint8_t>(32, 4, 8200, rung());
    compare_with_reference<std::uint64_t, std::uint16_t>(192, 7, 3001, rung());
    compare_with_reference<std::uint64_t, std::uint16_t>(320, 4, 1001, rung());
    compare_with_reference<std::uint64_t, std::uint16_t>(1024, 4, 501, rung());
    compare_with_reference<std::uint64_t, std::uint16_t>(4096, 3, 100, rung());
}

TEST_P(HammingAnchors, AnchorsWithoutWordsHaveDistanceZero) {
    std::vector<std::uint16_t> out(15, 77);
    simd::hamming_many_anchors<std::uint64_t, std::uint16_t>({}, 5, {}, out, rung());
    EXPECT_EQ(std::vector<std::uint16_t>(15, 0), out);
}

KVCRUSH_ON_EVERY_RUNG(HammingAnchors);

} // namespace
