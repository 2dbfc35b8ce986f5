// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/logits.hpp>

#include "../../reference/attention.hpp"
#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace {

namespace simd = kvcrush::simd;
using kvcrush::reference::guarded_buffer;

constexpr std::size_t width = simd::key_tile;
constexpr std::array<std::size_t, 12> head_dims{1, 2, 3, 4, 5, 7, 8, 31, 64, 80, 128, 257};
constexpr std::array<std::size_t, 12> counts{0, 1, 7, 8, 9, 15, 16, 17, 48, 49, 63, 64};
constexpr std::array<std::size_t, 10> query_counts{0, 1, 2, 5, 6, 7, 8, 11, 12, 33};

void fill(std::span<float> values, std::uint64_t seed) {
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = kvcrush::random_unit(seed, 0, i) * 4.0F - 2.0F;
    }
}

class Logits : public kvcrush::reference::every_rung {};

TEST_P(Logits, PackingTransposesAndFillsWithZeros) {
    for (const std::size_t head_dim : head_dims) {
        for (const std::size_t count : counts) {
            SCOPED_TRACE(testing::Message() << head_dim << " channels, " << count << " tokens");
            guarded_buffer<float> keys(count * head_dim);
            guarded_buffer<float> tile(head_dim * width);
            fill(keys.span(), head_dim);
            fill(tile.span(), 1);
            simd::pack_key_tile(
                keys.span().data(), head_dim, count, head_dim, tile.span().data(), rung());
            for (std::size_t k = 0; k < head_dim; ++k) {
                for (std::size_t t = 0; t < width; ++t) {
                    ASSERT_EQ(tile[k * width + t], t < count ? keys[t * head_dim + k] : 0.0F)
                        << "channel " << k << ", token " << t;
                }
            }
        }
    }
}

TEST_P(Logits, PackingTakesRowsFromAnywhere) {
    constexpr std::size_t head_dim = 20;
    constexpr std::size_t stride = 33;
    std::vector<float> keys(width * stride);
    fill(keys, 2);
    std::array<const float*, width> rows{};
    for (std::size_t t = 0; t < width; ++t) {
        rows[t] = keys.data() + (width - 1 - t) * stride;
    }
    std::vector<float> strided(head_dim * width);
    std::vector<float> scattered(head_dim * width);
    simd::pack_key_tile(keys.data(), stride, width, head_dim, strided.data(), rung());
    simd::pack_key_tile(rows, head_dim, scattered.data(), rung());
    for (std::size_t k = 0; k < head_dim; ++k) {
        for (std::size_t t = 0; t < width; ++t) {
            ASSERT_EQ(strided[k * width + t], keys[t * stride + k]);
            ASSERT_EQ(scattered[k * width + t], keys[(width - 1 - t) * stride + k]);
        }
    }
}

TEST_P(Logits, EqualTheReference) {
    constexpr float scale = 0.125F;
    for (const std::size_t head_dim : head_dims) {
        std::vector<float> keys(width * head_dim);
        fill(keys, head_dim);
        guarded_buffer<float> tile(head_dim * width);
        simd::pack_key_tile(keys.data(), head_dim, width, head_dim, tile.span().data(), rung());
        for (const std::size_t num_queries : query_counts) {
            guarded_buffer<float> queries(num_queries * head_dim);
            fill(queries.span(), 100 + num_queries);
            for (const std::size_t count : counts) {
                guarded_buffer<float> out(num_queries * count);
                simd::tile_logits(queries.span().data(),
                                  head_dim,
                                  num_queries,
                                  tile.span().data(),
                                  head_dim,
                                  scale,
                                  out.span().data(),
                                  count,
                                  count,
                                  rung());
                for (std::size_t i = 0; i < num_queries * count; ++i) {
                    const auto query = queries.span().subspan(i / count * head_dim, head_dim);
                    const auto key = std::span(keys).subspan(i % count * head_dim, head_dim);
                    // head_dim products and sums and the scaling, each rounded by 2^-24 of what is
                    // summed so far.
                    const double bound = static_cast<double>(head_dim + 1) * 0x1p-23 *
                                         static_cast<double>(scale) *
                                         kvcrush::reference::dot_of_magnitudes(query, key);
                    const double expected =
                        static_cast<double>(scale) * kvcrush::reference::dot(query, key);
                    ASSERT_NEAR(static_cast<double>(out[i]), expected, bound)
                        << head_dim << " channels, query " << i / count << " of " << num_queries
                        << ", token " << i % count << " of " << count;
                }
            }
        }
    }
}

TEST_P(Logits, NothingIsWrittenBehindCount) {
    constexpr std::size_t head_dim = 6;
    constexpr std::size_t stride = 70;
    std::vector<float> queries(7 * (head_dim + 3), 1.0F);
    std::vector<float> tile(head_dim * width, 1.0F);
    for (const std::size_t count : counts) {
        std::vector<float> out(7 * stride, -1.0F);
        simd::tile_logits(queries.data(),
                          head_dim + 3,
                          7,
                          tile.data(),
                          head_dim,
                          2.0F,
                          out.data(),
                          stride,
                          count,
                          rung());
        for (std::size_t i = 0; i < out.size(); ++i) {
            ASSERT_EQ(out[i], i % stride < count ? 12.0F : -1.0F)
                << count << " tokens, index " << i;
        }
    }
}

TEST(Logits, VectorRungsAgreeBitForBit) {
    if (simd::best() < simd::isa::avx512) {
        GTEST_SKIP() << "this CPU lacks avx512";
    }
    constexpr std::size_t head_dim = 128;
    constexpr std::size_t num_queries = 13;
    std::vector<float> queries(num_queries * head_dim);
    std::vector<float> tile(head_dim * width);
    fill(queries, 3);
    fill(tile, 4);
    std::vector<float> wide(num_queries * width);
    std::vector<float> narrow(num_queries * width);
    simd::tile_logits(queries.data(),
                      head_dim,
                      num_queries,
                      tile.data(),
                      head_dim,
                      0.3F,
                      wide.data(),
                      width,
                      width,
                      simd::isa::avx512);
    simd::tile_logits(queries.data(),
                      head_dim,
                      num_queries,
                      tile.data(),
                      head_dim,
                      0.3F,
                      narrow.data(),
                      width,
                      width,
                      simd::isa::avx2);
    EXPECT_EQ(wide, narrow);
}

KVCRUSH_ON_EVERY_RUNG(Logits);

} // namespace
