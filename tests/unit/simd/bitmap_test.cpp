// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/bitmap.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"
#include "scores.hpp"

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

static_assert(noexcept(simd::mark_inside({}, {}, {})) && noexcept(simd::write_marked({}, {})));
static_assert(simd::bitmap_words(0) == 0 && simd::bitmap_words(1) == 1);
static_assert(simd::bitmap_words(64) == 1 && simd::bitmap_words(65) == 2);

constexpr std::initializer_list<std::size_t> sizes{
    0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 191, 192, 700};

class Bitmap : public reference::every_rung {};

TEST_P(Bitmap, MarksWhatTheCutContains) {
    for (const std::size_t n : sizes) {
        reference::guarded_buffer<float> scores(n);
        reference::guarded_buffer<std::uint64_t> words(simd::bitmap_words(n));
        for (const auto kind : reference::all_score_kinds) {
            reference::fill_scores(scores.span(), kind, n + 1);
            for (const std::size_t k : reference::ranks_to_test(n)) {
                std::fill(words.span().begin(), words.span().end(), ~std::uint64_t{0});
                const simd::rank_cut cut = simd::find_rank_cut(scores.span(), k);
                simd::mark_inside(scores.span(), cut, words.span(), rung());
                for (std::size_t t = 0; t < 64 * words.span().size(); ++t) {
                    ASSERT_EQ(t < n && cut.contains(scores[t], t),
                              (words[t / 64] >> (t % 64) & 1U) != 0)
                        << "kind " << static_cast<int>(kind) << ", n " << n << ", k " << k
                        << ", token " << t;
                }
            }
        }
    }
}

TEST_P(Bitmap, SplitsEqualScoresAnywhere) {
    const std::vector<float> scores(200, 1.0F);
    for (std::size_t tie_end = 0; tie_end <= 210; ++tie_end) {
        const simd::rank_cut cut{simd::ordered_key(1.0F), tie_end};
        std::vector<std::uint64_t> words(4);
        simd::mark_inside(scores, cut, words, rung());
        for (std::size_t t = 0; t < 256; ++t) {
            ASSERT_EQ(t < (std::min)(tie_end, scores.size()), (words[t / 64] >> (t % 64) & 1U) != 0)
                << tie_end << ", token " << t;
        }
    }
}

TEST_P(Bitmap, WritesTheMarkedTokensAscending) {
    for (const std::size_t n : sizes) {
        for (const std::uint64_t one_in : std::initializer_list<std::uint64_t>{1U, 2U, 7U, 90U}) {
            reference::guarded_buffer<std::uint64_t> words(simd::bitmap_words(n));
            std::vector<std::uint32_t> expected;
            for (std::size_t t = 0; t < n; ++t) {
                if (kvcrush::random_bits(n, one_in, t) % one_in == 0) {
                    words[t / 64] |= std::uint64_t{1} << (t % 64);
                    expected.push_back(static_cast<std::uint32_t>(t + 100));
                }
            }
            // As much room as needed, less, and more.
            for (const std::size_t room :
                 std::initializer_list<std::size_t>{expected.size(), expected.size() / 2, n + 70}) {
                reference::guarded_buffer<std::uint32_t> out(room);
                const std::size_t num = simd::write_marked(words.span(), out.span(), 100, rung());
                ASSERT_EQ((std::min)(room, expected.size()), num);
                ASSERT_TRUE(std::equal(expected.begin(),
                                       expected.begin() + static_cast<std::ptrdiff_t>(num),
                                       out.span().begin()))
                    << "n " << n << ", one in " << one_in << ", room " << room;
            }
        }
    }
}

KVCRUSH_ON_EVERY_RUNG(Bitmap);

} // namespace
