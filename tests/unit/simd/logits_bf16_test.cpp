// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/logits_bf16.hpp>

#include "../../reference/attention.hpp"
#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#if KVCRUSH_X86_DISPATCH
#    include <cpuid.h>
#endif

namespace {

namespace simd = kvcrush::simd;
using kvcrush::bf16;
using kvcrush::reference::guarded_buffer;

constexpr std::size_t width = simd::key_tile;
constexpr std::array<std::size_t, 13> head_dims{1, 2, 3, 4, 7, 8, 9, 31, 64, 80, 96, 128, 257};
constexpr std::array<std::size_t, 12> counts{0, 1, 7, 8, 9, 15, 16, 17, 48, 49, 63, 64};
constexpr std::array<std::size_t, 10> query_counts{0, 1, 2, 5, 6, 7, 8, 11, 12, 33};

void fill(std::span<bf16> values, std::uint64_t seed, float size = 4.0F) {
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = kvcrush::to_bf16(size * (kvcrush::random_unit(seed, 0, i) - 0.5F));
    }
}

std::vector<float> widened(std::span<const bf16> values) {
    std::vector<float> floats;
    for (const bf16 value : values) {
        floats.push_back(kvcrush::to_float(value));
    }
    return floats;
}

/// Where a channel of a token lies in a tile.
std::size_t place(std::size_t channel, std::size_t token) {
    return (channel / 2 * width + token) * 2 + channel % 2;
}

/// What the header promises before scaling: the rounding of the sums, and what vdpbf16ps takes for zero.
double error_bound(std::span<const float> query, std::span<const float> key) {
    double sizes = 0.0;
    for (std::size_t k = 0; k < query.size(); ++k) {
        sizes +=
            std::abs(static_cast<double>(query[k])) + std::abs(static_cast<double>(key[k])) + 2.0;
    }
    return static_cast<double>(query.size() + 1) * 0x1p-23 *
               kvcrush::reference::dot_of_magnitudes(query, key) +
           0x1p-126 * sizes;
}

void expect_reference(std::span<const bf16> queries,
                      std::span<const bf16> keys,
                      std::size_t head_dim,
                      float scale,
                      std::size_t count,
                      std::span<const float> out) {
    const std::vector<float> wide_queries = widened(queries);
    const std::vector<float> wide_keys = widened(keys);
    for (std::size_t i = 0; i < out.size(); ++i) {
        const auto query = std::span(wide_queries).subspan(i / count * head_dim, head_dim);
        const auto key = std::span(wide_keys).subspan(i % count * head_dim, head_dim);
        const double factor = static_cast<double>(scale);
        ASSERT_NEAR(static_cast<double>(out[i]),
                    factor * kvcrush::reference::dot(query, key),
                    factor * error_bound(query, key))
            << head_dim << " channels, query " << i / count << ", token " << i % count << " of "
            << count;
    }
}

class LogitsBf16 : public kvcrush::reference::every_rung {};

TEST_P(LogitsBf16, PackingPairsChannelsAndFillsWithZeros) {
    for (const std::size_t head_dim : head_dims) {
        for (const std::size_t count : counts) {
            SCOPED_TRACE(testing::Message() << head_dim << " channels, " << count << " tokens");
            guarded_buffer<bf16> keys(count * head_dim);
            guarded_buffer<bf16> tile(simd::bf16_tile_size(head_dim));
            fill(keys.span(), head_dim);
            fill(tile.span(), 1);
            simd::pack_key_tile(
                keys.span().data(), head_dim, count, head_dim, tile.span().data(), rung());
            for (std::size_t k = 0; k < head_dim + head_dim % 2; ++k) {
                for (std::size_t t = 0; t < width; ++t) {
                    const bool present = t < count && k < head_dim;
                    ASSERT_EQ(tile[place(k, t)].bits, present ? keys[t * head_dim + k].bits : 0)
                        << "channel " << k << ", token " << t;
                }
            }
        }
    }
}

TEST_P(LogitsBf16, PackingTakesRowsFromAnywhereAndCopiesTheirBits) {
    constexpr std::size_t head_dim = 20;
    constexpr std::size_t stride = 33;
    std::vector<bf16> keys(width * stride);
    for (std::size_t i = 0; i < keys.size(); ++i) { // among them subnormals and signalling NaNs
        keys[i].bits = static_cast<std::uint16_t>(kvcrush::random_bits(2, 0, i));
    }
    keys[5].bits = 0x7F81;
    std::array<const bf16*, width> rows{};
    for (std::size_t t = 0; t < width; ++t) {
        rows[t] = keys.data() + (width - 1 - t) * stride;
    }
    std::vector<bf16> strided(simd::bf16_tile_size(head_dim));
    std::vector<bf16> scattered(simd::bf16_tile_size(head_dim));
    simd::pack_key_tile(keys.data(), stride, width, head_dim, strided.data(), rung());
    simd::pack_key_tile(rows, head_dim, scattered.data(), rung());
    for (std::size_t k = 0; k < head_dim; ++k) {
        for (std::size_t t = 0; t < width; ++t) {
            ASSERT_EQ(strided[place(k, t)].bits, keys[t * stride + k].bits);
            ASSERT_EQ(scattered[place(k, t)].bits, keys[(width - 1 - t) * stride + k].bits);
        }
    }
}

TEST_P(LogitsBf16, EqualTheReference) {
    constexpr float scale = 0.125F;
    for (const std::size_t head_dim : head_dims) {
        std::vector<bf16> keys(width * head_dim);
        fill(keys, head_dim);
        guarded_buffer<bf16> tile(simd::bf16_tile_size(head_dim));
        simd::pack_key_tile(keys.data(), head_dim, width, head_dim, tile.span().data(), rung());
        for (const std::size_t num_queries : query_counts) {
            guarded_buffer<bf16> queries(num_queries * head_dim);
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
                ASSERT_NO_FATAL_FAILURE(
                    expect_reference(queries.span(), keys, head_dim, scale, count, out.span()));
            }
        }
    }
}

TEST_P(LogitsBf16, SubnormalsStayWithinTheBound) {
    constexpr std::size_t head_dim = 33;
    constexpr std::size_t num_queries = 3;
    for (const float size : {0x1p-120F, 0x1p-64F, 0x1p-60F}) {
        std::vector<bf16> keys(width * head_dim);
        std::vector<bf16> queries(num_queries * head_dim);
        fill(keys, 5, 0x1p-126F);
        fill(queries, 6, 1.0F);
        for (std::size_t i = 0; i < keys.size();
             i += 2) { // products below the smallest normal number
            keys[i] = kvcrush::to_bf16(size * kvcrush::random_unit(7, 0, i));
        }
        for (std::size_t i = 0; i < queries.size(); i += 3) {
            queries[i] = kvcrush::to_bf16(-size * kvcrush::random_unit(8, 0, i));
        }
        std::vector<bf16> tile(simd::bf16_tile_size(head_dim));
        std::vector<float> out(num_queries * width);
        simd::pack_key_tile(keys.data(), head_dim, width, head_dim, tile.data(), rung());
        simd::tile_logits(queries.data(),
                          head_dim,
                          num_queries,
                          tile.data(),
                          head_dim,
                          1.0F,
                          out.data(),
                          width,
                          width,
                          rung());
        expect_reference(queries, keys, head_dim, 1.0F, width, out);
    }
}

TEST_P(LogitsBf16, NanAndInfinityStayInTheirToken) {
    constexpr std::size_t head_dim = 9; // an odd channel whose partner is made of zeros
    constexpr float infinity = std::numeric_limits<float>::infinity();
    std::vector<bf16> keys(width * head_dim, kvcrush::to_bf16(1.0F));
    keys[3 * head_dim + 8] = kvcrush::to_bf16(infinity);
    keys[4 * head_dim + 1] = kvcrush::to_bf16(-infinity);
    keys[5 * head_dim] = kvcrush::to_bf16(std::numeric_limits<float>::quiet_NaN());
    std::vector<bf16> queries(7 * head_dim, kvcrush::to_bf16(2.0F));
    std::vector<bf16> tile(simd::bf16_tile_size(head_dim));
    std::vector<float> out(7 * width);
    simd::pack_key_tile(keys.data(), head_dim, width, head_dim, tile.data(), rung());
    simd::tile_logits(
        queries.data(), head_dim, 7, tile.data(), head_dim, 1.0F, out.data(), width, width, rung());
    for (std::size_t i = 0; i < out.size(); ++i) {
        switch (i % width) {
        case 3: ASSERT_EQ(out[i], infinity); break;
        case 4: ASSERT_EQ(out[i], -infinity); break;
        case 5: ASSERT_TRUE(std::isnan(out[i])); break;
        default: ASSERT_EQ(out[i], 18.0F) << "index " << i;
        }
    }
}

TEST_P(LogitsBf16, NothingIsWrittenBehindCount) {
    constexpr std::size_t head_dim = 6;
    constexpr std::size_t stride = 70;
    const std::vector<bf16> queries(7 * (head_dim + 3), kvcrush::to_bf16(1.0F));
    const std::vector<bf16> tile(simd::bf16_tile_size(head_dim), kvcrush::to_bf16(1.0F));
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

#if KVCRUSH_X86_DISPATCH

/// What CPUs with AVX-512 but without bf16 products run.
TEST(LogitsBf16, WideningRungsAgreeBitForBit) {
    if (simd::best() < simd::isa::avx512) {
        GTEST_SKIP() << "this CPU lacks avx512";
    }
    for (const std::size_t head_dim : head_dims) {
        for (const std::size_t num_queries : query_counts) {
            for (const std::size_t count : counts) {
                guarded_buffer<bf16> queries(num_queries * head_dim);
                guarded_buffer<bf16> tile(simd::bf16_tile_size(head_dim));
                fill(queries.span(), 3);
                fill(tile.span(), 4);
                guarded_buffer<float> wide(num_queries * count);
                guarded_buffer<float> narrow(num_queries * count);
                simd::detail::bf16_logits_args args{queries.span().data(),
                                                    head_dim,
                                                    num_queries,
                                                    tile.span().data(),
                                                    head_dim,
                                                    0.3F,
                                                    wide.span().data(),
                                                    count,
                                                    count};
                simd::detail::bf16_logits_by_blocks<simd::detail::bf16_block_avx512>(args);
                args.out = narrow.span().data();
                simd::detail::bf16_logits_by_blocks<simd::detail::bf16_block_avx2>(args);
                for (std::size_t i = 0; i < num_queries * count; ++i) {
                    ASSERT_EQ(wide[i], narrow[i])
                        << head_dim << " channels, " << num_queries << " queries, " << count
                        << " tokens, index " << i;
                }
            }
        }
    }
}

/// The bit of the CPU's own list, asked without the compiler's help: leaf 7, second part, EAX.
bool cpu_lists_avx512_bf16() {
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 5 & 1U) != 0;
}

TEST(LogitsBf16, ProductsOfBf16AreTakenWhereTheCpuHasThem) {
    EXPECT_EQ(simd::has_bf16(), simd::best() == simd::isa::avx512 && cpu_lists_avx512_bf16());
    if (simd::best() < simd::isa::avx512) {
        GTEST_SKIP() << "this CPU lacks avx512";
    }
    constexpr std::size_t head_dim = 128;
    std::vector<bf16> queries(7 * head_dim);
    std::vector<bf16> tile(simd::bf16_tile_size(head_dim));
    fill(queries, 13);
    fill(tile, 14);
    const auto logits = [&](const auto& kernel) {
        std::vector<float> out(7 * width);
        kernel(simd::detail::bf16_logits_args{
            queries.data(), head_dim, 7, tile.data(), head_dim, 0.3F, out.data(), width, width});
        return out;
    };
    const std::vector<float> widened_first =
        logits(simd::detail::bf16_logits_by_blocks<simd::detail::bf16_block_avx512>);
    std::vector<float> out(7 * width);
    simd::tile_logits(
        queries.data(), head_dim, 7, tile.data(), head_dim, 0.3F, out.data(), width, width);
    if (!simd::has_bf16()) {
        EXPECT_EQ(out, widened_first);
        return;
    }
    EXPECT_EQ(out, logits(simd::detail::bf16_logits_by_blocks<simd::detail::bf16_block_dot>));
    EXPECT_NE(out, widened_first) << "vdpbf16ps rounds otherwise: this shows which one ran";
}

#else

TEST(LogitsBf16, ProductsOfBf16NeedX86) { EXPECT_FALSE(simd::has_bf16()); }

#endif

KVCRUSH_ON_EVERY_RUNG(LogitsBf16);

} // namespace
