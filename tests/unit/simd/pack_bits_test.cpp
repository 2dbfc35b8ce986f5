// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/simd/pack_bits.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "../../reference/top_k.hpp"
#include "every_rung.hpp"
#include "scores.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <vector>

namespace {

namespace simd = kvcrush::simd;
namespace reference = kvcrush::reference;

static_assert(simd::words_per_code<std::uint8_t>(5) == 1 &&
              simd::words_per_code<std::uint64_t>(65) == 2);

class PackBits : public reference::every_rung {};

/// Bit h of token t is set exactly if t is among the best tokens of row h. Rows are longer than the
/// tokens that count.
template <typename Code>
void expect_best_tokens(std::size_t num_heads,
                        std::size_t num_tokens,
                        reference::score_kind kind,
                        simd::isa rung) {
    const std::size_t row_stride = num_tokens + num_heads % 3;
    const std::size_t words = simd::words_per_code<Code>(num_heads);
    reference::guarded_buffer<float> scores(
        num_heads == 0 ? 0 : (num_heads - 1) * row_stride + num_tokens);
    reference::guarded_buffer<Code> codes(words * num_tokens);
    reference::fill_scores(scores.span(), kind, num_heads * 1000 + num_tokens);
    std::fill(codes.span().begin(), codes.span().end(), static_cast<Code>(0xA5));
    std::vector<simd::rank_cut> cuts;
    std::vector<Code> expected(words * num_tokens, 0);
    for (std::size_t h = 0; h < num_heads; ++h) {
        const std::span<const float> row = scores.span().subspan(h * row_stride, num_tokens);
        const std::size_t k = (num_tokens * (h % 5)) / 4; // from none to all
        cuts.push_back(simd::find_rank_cut(row, k, rung));
        for (const std::uint32_t token : reference::top_k<float>(row, k)) {
            expected[token * words + h / (8 * sizeof(Code))] |=
                static_cast<Code>(std::uint64_t{1} << (h % (8 * sizeof(Code))));
        }
    }
    simd::pack_heads<Code>(scores.span(), row_stride, cuts, codes.span(), rung);
    const std::vector<Code> actual(codes.span().begin(), codes.span().end());
    ASSERT_EQ(expected, actual) << num_heads << " heads, " << num_tokens << " tokens, kind "
                                << static_cast<int>(kind);
}

TEST_P(PackBits, SetsTheBitsOfTheBestTokens) {
    for (const std::size_t n : std::initializer_list<std::size_t>{
             0U, 1U, 2U, 7U, 15U, 16U, 17U, 31U, 32U, 33U, 63U, 64U, 65U, 100U, 200U}) {
        for (const auto kind : {reference::score_kind::signed_normal,
                                reference::score_kind::few_values,
                                reference::score_kind::half_nan,
                                reference::score_kind::any_bits}) {
            for (const std::size_t heads : std::initializer_list<std::size_t>{1U, 3U, 8U}) {
                expect_best_tokens<std::uint8_t>(heads, n, kind, rung());
            }
            for (const std::size_t heads : std::initializer_list<std::size_t>{9U, 14U, 16U}) {
                expect_best_tokens<std::uint16_t>(heads, n, kind, rung());
            }
            for (const std::size_t heads : std::initializer_list<std::size_t>{2U, 24U, 32U}) {
                expect_best_tokens<std::uint32_t>(heads, n, kind, rung());
            }
            for (const std::size_t heads :
                 std::initializer_list<std::size_t>{1U, 32U, 33U, 40U, 64U, 65U, 100U, 130U}) {
                expect_best_tokens<std::uint64_t>(heads, n, kind, rung());
            }
        }
    }
}

TEST_P(PackBits, TakesTheWidestSignature) {
    expect_best_tokens<std::uint64_t>(4096, 70, reference::score_kind::uniform, rung());
}

TEST_P(PackBits, WritesZerosWithoutHeads) {
    std::vector<std::uint32_t> codes(40, 7);
    simd::pack_heads<std::uint32_t>({}, 0, {}, codes, rung());
    EXPECT_EQ(std::vector<std::uint32_t>(40, 0), codes);
}

TEST_P(PackBits, CutsOfRankZeroAndOfAllAreAllZerosAndAllOnes) {
    std::vector<float> scores(2 * 70, std::numeric_limits<float>::quiet_NaN());
    const std::vector<simd::rank_cut> cuts{
        simd::find_rank_cut(std::span(scores).first(70), 0, rung()),
        simd::find_rank_cut(std::span(scores).first(70), 70, rung())};
    std::vector<std::uint8_t> codes(70);
    simd::pack_heads<std::uint8_t>(scores, 70, cuts, codes, rung());
    EXPECT_EQ(std::vector<std::uint8_t>(70, 2), codes);
}

KVCRUSH_ON_EVERY_RUNG(PackBits);

} // namespace
