// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/simd/pack_signs.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"
#include "scores.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <vector>

namespace {

namespace simd = kvcrush::simd;
namespace reference = kvcrush::reference;

class PackSigns : public reference::every_rung {};

/// Rows that each end at an unreadable page; channel c is chosen where (c * 5) % 8 < eighths.
template <typename Code>
void expect_signs(std::size_t num_channels, std::size_t eighths, simd::isa rung) {
    constexpr std::size_t num_rows = 5;
    constexpr std::size_t width = std::numeric_limits<Code>::digits;
    std::vector<std::unique_ptr<reference::guarded_buffer<float>>> memory;
    std::vector<const float*> rows;
    for (std::size_t r = 0; r < num_rows; ++r) {
        memory.push_back(std::make_unique<reference::guarded_buffer<float>>(num_channels));
        const auto kind =
            r % 2 == 0 ? reference::score_kind::any_bits : reference::score_kind::signed_normal;
        reference::fill_scores(memory.back()->span(), kind, num_channels * 10 + r);
        rows.push_back(memory.back()->span().data());
    }
    std::vector<std::uint64_t> chosen((num_channels + 63) / 64, 0);
    std::vector<std::size_t> channels;
    for (std::size_t c = 0; c < num_channels; ++c) {
        if (c * 5 % 8 < eighths) {
            chosen[c / 64] |= std::uint64_t{1} << (c % 64);
            channels.push_back(c);
        }
    }
    if (width < 64 && channels.size() > width) {
        return;
    }
    const std::size_t words = simd::words_per_code<Code>(channels.size());
    std::vector<Code> expected(num_rows * words, 0);
    for (std::size_t r = 0; r < num_rows; ++r) {
        for (std::size_t i = 0; i < channels.size(); ++i) {
            if (rows[r][channels[i]] > 0.0F) {
                Code& word = expected[r * words + i / width];
                word = static_cast<Code>(word | (std::uint64_t{1} << (i % width)));
            }
        }
    }
    reference::guarded_buffer<Code> codes(num_rows * words);
    std::fill(codes.span().begin(), codes.span().end(), static_cast<Code>(0xA5));
    simd::pack_signs<Code>(rows, num_channels, chosen, codes.span(), rung);
    const std::vector<Code> actual(codes.span().begin(), codes.span().end());
    ASSERT_EQ(expected, actual) << num_channels << " channels, " << channels.size() << " chosen";
}

TEST_P(PackSigns, SetsTheBitsOfChosenChannelsAboveZero) {
    for (const std::size_t n : std::initializer_list<std::size_t>{
             0, 1, 7, 8, 9, 15, 16, 17, 31, 40, 63, 64, 65, 127, 128, 129, 200, 256, 300, 576}) {
        for (const std::size_t eighths : std::initializer_list<std::size_t>{0, 1, 3, 7, 8}) {
            expect_signs<std::uint8_t>(n, eighths, rung());
            expect_signs<std::uint16_t>(n, eighths, rung());
            expect_signs<std::uint32_t>(n, eighths, rung());
            expect_signs<std::uint64_t>(n, eighths, rung());
        }
    }
}

KVCRUSH_ON_EVERY_RUNG(PackSigns);

} // namespace
