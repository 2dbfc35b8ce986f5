// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/head_packer.hpp>
#include <kvcrush/simd/rank_cut.hpp>

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

class HeadPacker : public reference::every_rung {};

/// Bit h of token t is set exactly if t is among the best tokens of row h, whatever the order of the heads.
template <typename Code>
void expect_best_tokens(std::size_t num_heads,
                        std::size_t num_tokens,
                        reference::score_kind kind,
                        simd::isa rung) {
    std::vector<float> scores(num_heads * num_tokens);
    reference::fill_scores(scores, kind, num_heads * 1000 + num_tokens);
    const std::size_t words = simd::words_per_code<Code>(num_heads);
    std::vector<Code> expected(words * num_tokens, 0);
    reference::guarded_buffer<float> row(num_tokens);
    reference::guarded_buffer<Code> codes(words * num_tokens);
    std::fill(codes.span().begin(), codes.span().end(), static_cast<Code>(0xA5));
    simd::head_packer<Code> packer(codes.span(), num_heads, rung);
    for (std::size_t h = num_heads; h-- > 0;) {
        std::copy_n(scores.begin() + static_cast<std::ptrdiff_t>(h * num_tokens),
                    num_tokens,
                    row.span().begin());
        const std::size_t k = (num_tokens * (h % 5)) / 4; // from none to all
        for (const std::uint32_t token : reference::top_k<float>(row.span(), k)) {
            expected[token * words + h / (8 * sizeof(Code))] |=
                static_cast<Code>(std::uint64_t{1} << (h % (8 * sizeof(Code))));
        }
        packer.add(h, row.span(), simd::find_rank_cut(row.span(), k, rung));
    }
    packer.finish();
    const std::vector<Code> actual(codes.span().begin(), codes.span().end());
    ASSERT_EQ(expected, actual) << num_heads << " heads, " << num_tokens << " tokens, kind "
                                << static_cast<int>(kind);
}

TEST_P(HeadPacker, SetsTheBitsOfTheBestTokens) {
    for (const std::size_t n : std::initializer_list<std::size_t>{
             0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 200}) {
        for (const auto kind : {reference::score_kind::signed_normal,
                                reference::score_kind::softmax_mass,
                                reference::score_kind::few_values,
                                reference::score_kind::mostly_zero,
                                reference::score_kind::half_nan,
                                reference::score_kind::any_bits}) {
            for (const std::size_t heads : std::initializer_list<std::size_t>{1, 3, 8}) {
                expect_best_tokens<std::uint8_t>(heads, n, kind, rung());
            }
            for (const std::size_t heads : std::initializer_list<std::size_t>{9, 14, 16}) {
                expect_best_tokens<std::uint16_t>(heads, n, kind, rung());
            }
            for (const std::size_t heads : std::initializer_list<std::size_t>{2, 24, 32}) {
                expect_best_tokens<std::uint32_t>(heads, n, kind, rung());
            }
            for (const std::size_t heads :
                 std::initializer_list<std::size_t>{1, 32, 33, 40, 64, 65, 96, 97, 130, 200}) {
                expect_best_tokens<std::uint64_t>(heads, n, kind, rung());
            }
        }
    }
}

TEST_P(HeadPacker, TakesTheWidestSignature) {
    expect_best_tokens<std::uint64_t>(4096, 70, reference::score_kind::uniform, rung());
}

TEST_P(HeadPacker, WritesZerosWithoutHeads) {
    std::vector<std::uint32_t> codes(40, 7);
    simd::head_packer<std::uint32_t> packer(codes, 0, rung());
    packer.finish();
    EXPECT_EQ(std::vector<std::uint32_t>(40, 0), codes);
}

TEST_P(HeadPacker, CutsOfRankZeroAndOfAllAreAllZerosAndAllOnes) {
    const std::vector<float> scores(70, std::numeric_limits<float>::quiet_NaN());
    std::vector<std::uint8_t> codes(70);
    simd::head_packer<std::uint8_t> packer(codes, 2, rung());
    packer.add(0, scores, simd::find_rank_cut(scores, 0, rung()));
    packer.add(1, scores, simd::find_rank_cut(scores, 70, rung()));
    packer.finish();
    EXPECT_EQ(std::vector<std::uint8_t>(70, 2), codes);
}

KVCRUSH_ON_EVERY_RUNG(HeadPacker);

} // namespace
