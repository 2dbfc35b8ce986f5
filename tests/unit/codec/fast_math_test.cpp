// SPDX-License-Identifier: Apache-2.0
/// Compiled with -ffast-math (see tests/CMakeLists.txt): NaN and infinity are still not stored, and rows come back.
#include <kvcrush/codec/codebook_row.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/fp8.hpp>
#include <kvcrush/codec/hadamard.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/iq4_nl.hpp>
#include <kvcrush/codec/kivi.hpp>
#include <kvcrush/codec/mean_centred.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q4_1.hpp>
#include <kvcrush/codec/q5_0.hpp>
#include <kvcrush/codec/q5_1.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/codec/turbo_quant.hpp>

#include "unit/simd/every_rung.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvcrush {
namespace {

class FastMath : public reference::every_rung {};

/// @param largest_error  of a channel, the largest being 1
template <typename C>
void expect_finite_rows_only(const C& codec, simd::isa rung, float largest_error) {
    constexpr std::size_t dim = 64;
    std::vector<float> row(codec.group_size() * dim);
    for (std::size_t i = 0; i < row.size(); ++i) {
        row[i] = static_cast<float>(static_cast<int>(i * 37 % 101) - 50) / 50.0F;
    }
    constexpr std::byte untouched{0x5A};
    std::vector<std::byte> bytes(codec.group_bytes(dim), untouched);
    // infinity, -infinity, NaN of either sign, a signalling one
    for (const std::uint32_t bits :
         {0x7F800000U, 0xFF800000U, 0x7FC00000U, 0xFFC00000U, 0x7F800001U}) {
        for (const std::size_t at : {std::size_t{0}, std::size_t{31}, row.size() - 1}) {
            std::vector<float> bad = row;
            bad[at] = std::bit_cast<float>(bits);
            EXPECT_FALSE(codec.encode(bad, dim, bytes, rung))
                << C::name << " stores " << std::hex << bits << " at " << std::dec << at;
        }
    }
    EXPECT_EQ(bytes, std::vector<std::byte>(bytes.size(), untouched)) << C::name;
    ASSERT_TRUE(codec.encode(row, dim, bytes, rung)) << C::name;
    std::vector<float> back(row.size());
    codec.decode(bytes, dim, back, rung);
    for (std::size_t i = 0; i < row.size(); ++i) {
        ASSERT_NEAR(back[i], row[i], largest_error) << C::name << ", channel " << i;
    }
}

TEST_P(FastMath, CodecsStoreFiniteRowsOnly) {
#if !defined(__FAST_MATH__)
    GTEST_SKIP() << "not compiled with -ffast-math";
#endif
    expect_finite_rows_only(dense_codec<float>{}, rung(), 0.0F);
    expect_finite_rows_only(dense_codec<f16>{}, rung(), 1e-3F);
    expect_finite_rows_only(dense_codec<bf16>{}, rung(), 1e-2F);
    expect_finite_rows_only(int8_row_codec{}, rung(), 1e-2F);
    expect_finite_rows_only(fp8_e4m3_codec{}, rung(), 0.1F);
    expect_finite_rows_only(fp8_e5m2_codec{}, rung(), 0.2F);
    expect_finite_rows_only(q8_0_codec{}, rung(), 1e-2F);
    expect_finite_rows_only(q4_0_codec{}, rung(), 0.15F);
    expect_finite_rows_only(q4_1_codec{}, rung(), 0.1F);
    expect_finite_rows_only(q5_0_codec{}, rung(), 0.1F);
    expect_finite_rows_only(q5_1_codec{}, rung(), 0.1F);
    expect_finite_rows_only(iq4_nl_codec{}, rung(), 0.15F);
    expect_finite_rows_only(codebook_row_codec{}, rung(), 0.4F);
    expect_finite_rows_only(turbo_quant_codec{}, rung(), 0.5F);
    expect_finite_rows_only(hadamard_codec<int8_row_codec>{}, rung(), 0.05F);
    expect_finite_rows_only(hadamard_codec<q4_0_codec>{}, rung(), 0.4F);
    expect_finite_rows_only(hadamard_codec<codebook_row_codec>{}, rung(), 0.4F);
    expect_finite_rows_only(mean_centred_codec<turbo_quant_codec>{}, rung(), 0.5F);
    expect_finite_rows_only(kivi_key_codec{}, rung(), 0.1F);
    expect_finite_rows_only(kivi_value_codec{}, rung(), 0.1F);
}

KVCRUSH_ON_EVERY_RUNG(FastMath);

} // namespace
} // namespace kvcrush
