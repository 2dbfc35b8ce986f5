// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/attend/any_codec.hpp>
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/fp8.hpp>
#include <kvcrush/codec/hadamard.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/kivi.hpp>
#include <kvcrush/codec/mean_centred.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/turbo_quant.hpp>

#include "unit/attend/stored_cache.hpp"
#include "unit/simd/every_rung.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <initializer_list>
#include <limits>
#include <memory>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

namespace kvcrush {
namespace {

static_assert(std::is_convertible_v<int8_row_codec, any_codec>);
static_assert(std::is_convertible_v<const hadamard_codec<q4_0_codec>&, any_codec>);
static_assert(!std::is_constructible_v<any_codec, int>);
static_assert(std::is_nothrow_move_constructible_v<any_codec>);

/// What is stored and read through an any_codec is what the codec itself stores and reads.
template <Codec C>
void expect_same(const C& codec, simd::isa rung) {
    const any_codec any(codec);
    constexpr std::size_t dim = 64;
    EXPECT_EQ(any.name(), C::name);
    EXPECT_EQ(any.group_size(), codec.group_size());
    EXPECT_EQ(any.group_bytes(dim), codec.group_bytes(dim));
    EXPECT_EQ(any.centres_keys(), CentringCodec<C>);
    const std::size_t floats = codec.group_size() * dim;
    std::vector<float> rows = reference::normal_floats(floats, 1);
    std::vector<std::byte> bytes(codec.group_bytes(dim));
    std::vector<std::byte> wanted(bytes.size());
    ASSERT_TRUE(codec.encode(rows, dim, wanted, rung));
    ASSERT_TRUE(any.encode(rows, dim, bytes, rung));
    EXPECT_EQ(bytes, wanted);
    std::vector<float> found(floats);
    std::vector<float> decoded(floats);
    codec.decode(bytes, dim, decoded, rung);
    any.decode(bytes, dim, found, rung);
    EXPECT_EQ(found, decoded);
    rows.back() = std::numeric_limits<float>::quiet_NaN();
    EXPECT_FALSE(any.encode(rows, dim, bytes, rung));
    EXPECT_EQ(bytes, wanted);
    const row_kernels table = any.kernels(rung);
    EXPECT_EQ(table.group_size, codec.group_size());
    EXPECT_EQ(table.rung, rung);
    EXPECT_EQ(table.dots, kernels_of(codec, rung).dots);
    EXPECT_EQ(table.accumulate, kernels_of(codec, rung).accumulate);
    const row_kernels integers = any.kernels(arithmetic::integer, rung);
    EXPECT_EQ(integers.dots, kernels_of(codec, arithmetic::integer, rung).dots);
    EXPECT_EQ(integers.prepare, kernels_of(codec, arithmetic::integer, rung).prepare);
}

struct AnyCodec : reference::every_rung {};
KVCRUSH_ON_EVERY_RUNG(AnyCodec);

TEST_P(AnyCodec, DoesWhatTheCodecInItDoes) {
    expect_same(dense_codec<float>{}, rung());
    expect_same(dense_codec<bf16>{}, rung());
    expect_same(int8_row_codec{}, rung());
    expect_same(q4_0_codec{}, rung());
    expect_same(fp8_e4m3_codec{.scale = 2.0F}, rung());
    expect_same(hadamard_codec<q4_0_codec>{.signs = true, .seed = 3}, rung());
    expect_same(turbo_quant_codec{.bits = 3}, rung());
    expect_same(turbo_quant_codec{.bits = 5}, rung());
    expect_same(mean_centred_codec<turbo_quant_codec>{}, rung());
    expect_same(kivi_key_codec{.bits = 2, .tokens = 12}, rung());
    expect_same(kivi_value_codec{.bits = 2, .channels = 16}, rung());
}

TEST_P(AnyCodec, AttendsThroughTablesOfCodecsThatAreGone) {
    // The table refers to a value that all copies share: it lives as long as one of them.
    const std::size_t dim = 64;
    auto first = std::make_unique<any_codec>(hadamard_codec<q4_0_codec>{.signs = true, .seed = 5});
    const any_codec copy = *first;
    const row_kernels table = first->kernels(rung());
    first.reset();
    std::vector<std::byte> bytes(copy.group_bytes(dim));
    ASSERT_TRUE(copy.encode(reference::normal_floats(dim, 1), dim, bytes));
    std::vector<float> row(dim);
    copy.decode(bytes, dim, row);
    const std::vector<float> query = reference::normal_floats(dim, 2);
    std::vector<float> prepared(table.prepared_size(1, dim));
    table.prepare(table, query.data(), 1, dim, prepared.data());
    tile_rows tile;
    tile.count = 1;
    locate_rows({.data = bytes.data(), .stride = bytes.size()}, 1, 0, 1, tile);
    std::vector<float> scratch(kernel_scratch(1, dim));
    std::vector<float> out(attend_tile);
    table.dots(table, tile, prepared.data(), 1, dim, out.data(), scratch.data());
    const std::span<const float> q(query);
    EXPECT_NEAR(static_cast<double>(out[0]),
                reference::dot(q, row),
                1e-5 * reference::dot_of_magnitudes(q, row));
}

TEST(AnyCodecValue, HoldsHalfRowsUnlessToldOtherwise) {
    const any_codec codec;
    EXPECT_EQ(codec.name(), "f16");
    EXPECT_EQ(codec.group_bytes(80), 160U);
    EXPECT_FALSE(codec.centres_keys());
}

TEST(AnyCodecValue, ChecksTheCodecThatItIsGiven) {
    EXPECT_THROW(any_codec(turbo_quant_codec{.bits = 7}), std::invalid_argument);
    EXPECT_THROW(any_codec(kivi_key_codec{.bits = 3}), std::invalid_argument);
    EXPECT_THROW(any_codec(fp8_e5m2_codec{.scale = 0.0F}), std::invalid_argument);
    EXPECT_THROW(any_codec(q4_0_codec{}).validate_for(80), std::invalid_argument);
    EXPECT_NO_THROW(any_codec(q4_0_codec{}).validate_for(96));
}

TEST(AnyCodecValue, CopiesAndMovesAreTheSameCodec) {
    any_codec codec = turbo_quant_codec{.bits = 2};
    const any_codec copy = codec;
    any_codec moved = std::move(codec);
    EXPECT_EQ(copy.group_bytes(64), 18U);
    EXPECT_EQ(moved.group_bytes(64), 18U);
    moved = int8_row_codec{};
    EXPECT_EQ(moved.name(), "int8_row");
    EXPECT_EQ(copy.name(), "turbo_quant");
}

} // namespace
} // namespace kvcrush
