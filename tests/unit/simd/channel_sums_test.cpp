// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/simd/channel_sums.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"
#include "scores.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

namespace {

namespace simd = kvcrush::simd;
namespace reference = kvcrush::reference;

class ChannelSums : public reference::every_rung {};

struct owned_sums {
    explicit owned_sums(std::size_t channels)
        : origin(channels, 0.25F),
          sum(channels, 1.0),
          first(channels, 2.0),
          second(channels, 3.0),
          missing(channels, 4) {}
    [[nodiscard]] simd::channel_sums view() { return {origin, sum, first, second, missing}; }

    std::vector<float> origin;
    std::vector<double> sum;
    std::vector<double> first;
    std::vector<double> second;
    std::vector<std::uint32_t> missing;
};

TEST_P(ChannelSums, AddsFiniteValuesAndCountsTheOthers) {
    for (const std::size_t channels :
         std::initializer_list<std::size_t>{0, 1, 7, 8, 9, 16, 17, 64, 100}) {
        for (const std::size_t num_rows : std::initializer_list<std::size_t>{0, 1, 3, 4, 5, 18}) {
            for (const auto kind : {reference::score_kind::signed_normal,
                                    reference::score_kind::half_nan,
                                    reference::score_kind::mostly_zero}) {
                reference::guarded_buffer<float> values(num_rows * channels);
                reference::fill_scores(values.span(), kind, channels);
                if (values.span().size() > 20) {
                    values[20] = INFINITY;
                }
                std::vector<const float*> rows;
                owned_sums expected(channels);
                for (std::size_t r = 0; r < num_rows; ++r) {
                    rows.push_back(values.span().data() + r * channels);
                    for (std::size_t c = 0; c < channels; ++c) {
                        const float value = rows.back()[c];
                        if (std::isfinite(value)) {
                            const auto difference = static_cast<double>(value - 0.25F);
                            expected.sum[c] += static_cast<double>(value);
                            expected.first[c] += difference;
                            expected.second[c] += difference * difference;
                        } else {
                            ++expected.missing[c];
                        }
                    }
                }
                owned_sums actual(channels);
                simd::add_rows(rows, actual.view(), rung());
                // Bit for bit: each channel adds the same terms in the same order.
                ASSERT_EQ(expected.sum, actual.sum) << channels << " channels";
                ASSERT_EQ(expected.first, actual.first) << channels << " channels";
                ASSERT_EQ(expected.second, actual.second) << channels << " channels";
                ASSERT_EQ(expected.missing, actual.missing) << channels << " channels";
            }
        }
    }
}

KVCRUSH_ON_EVERY_RUNG(ChannelSums);

} // namespace
