// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/attend/attend.hpp>
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/mean_centred.hpp>
#include <kvcrush/codec/turbo_quant.hpp>

#include "codec_properties.hpp"
#include "gaussian_rows.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace {

using namespace kvcrush;

using centred_int8 = mean_centred_codec<int8_row_codec>;
using centred_turbo = mean_centred_codec<turbo_quant_codec>;
static_assert(CentringCodec<centred_int8> && !RotatingCodec<centred_int8>);
static_assert(CentringCodec<centred_turbo> && RotatingCodec<centred_turbo>);
static_assert(!CentringCodec<turbo_quant_codec>);

TEST(MeanCentred, ForwardsToTheInnerCodec) {
    const centred_turbo codec{.inner = {.bits = 3, .seed = 2}};
    codec.validate();
    EXPECT_THROW(centred_turbo{.inner = {.bits = 9}}.validate(), std::invalid_argument);
    EXPECT_THROW(codec.validate_for(100), std::invalid_argument);
    EXPECT_EQ(codec.group_bytes(64), codec.inner.group_bytes(64));
    EXPECT_EQ(&codec.stored(), &codec.inner.stored());
    std::vector<float> row(64);
    reference::fill_gaussian(row, 3);
    std::vector<std::byte> bytes(codec.group_bytes(64));
    std::vector<std::byte> expected(codec.group_bytes(64));
    ASSERT_TRUE(codec.encode(row, 64, bytes));
    ASSERT_TRUE(codec.inner.encode(row, 64, expected));
    EXPECT_EQ(bytes, expected);
    std::vector<float> decoded(64);
    std::vector<float> decoded_inner(64);
    codec.decode(bytes, 64, decoded);
    codec.inner.decode(bytes, 64, decoded_inner);
    EXPECT_EQ(decoded, decoded_inner);
    codec.rotate(decoded, 64);
    codec.inner.rotate(decoded_inner, 64);
    EXPECT_EQ(decoded, decoded_inner);
    codec.unrotate(decoded, 64);
    codec.inner.unrotate(decoded_inner, 64);
    EXPECT_EQ(decoded, decoded_inner);
}

TEST(MeanKey, LeavesTheSinksOut) {
    const std::vector<float> rows{1000, -1000, 1, 2, 3, 6, 5, 1};
    std::vector<float> mean(2);
    mean_key(rows, 2, 1, mean);
    EXPECT_EQ(mean, (std::vector<float>{3, 3}));
    mean_key(rows, 2, 0, mean);
    EXPECT_EQ(mean, (std::vector<float>{252.25F, -247.75F}));
}

TEST(MeanKey, IsZeroWithoutRows) {
    std::vector<float> mean{7, 7};
    mean_key({}, 2, 0, mean);
    EXPECT_EQ(mean, (std::vector<float>{0, 0}));
    mean = {7, 7};
    mean_key(std::vector<float>{1, 2, 3, 4}, 2, 4, mean);
    EXPECT_EQ(mean, (std::vector<float>{0, 0}));
}

TEST(MeanKey, SkipsRowsThatNoCodecTakesAndDoesNotOverflow) {
    constexpr float largest = std::numeric_limits<float>::max();
    const std::vector<float> rows{1,
                                  2,
                                  std::numeric_limits<float>::quiet_NaN(),
                                  9,
                                  9,
                                  -std::numeric_limits<float>::infinity(),
                                  3,
                                  4};
    std::vector<float> mean(2);
    mean_key(rows, 2, 0, mean);
    EXPECT_EQ(mean, (std::vector<float>{2, 3}));
    mean_key(std::vector<float>(10, largest), 2, 0, mean);
    EXPECT_EQ(mean, (std::vector<float>{largest, largest}));
}

TEST(MeanKey, LongRowsAreTakenInParts) {
    for (const std::size_t dim : std::initializer_list<std::size_t>{1, 127, 128, 129, 256, 300}) {
        std::vector<float> rows(5 * dim);
        reference::fill_gaussian(rows, dim);
        std::vector<float> mean(dim);
        mean_key(rows, dim, 2, mean);
        for (std::size_t c = 0; c < dim; ++c) {
            const double expected = (double(rows[2 * dim + c]) + double(rows[3 * dim + c]) +
                                     double(rows[4 * dim + c])) /
                                    3.0;
            EXPECT_FLOAT_EQ(mean[c], static_cast<float>(expected));
        }
    }
}

/// Largest error of the logits of keys with a large bias, centred or not.
double error_of_logits(bool centre) {
    constexpr std::size_t dim = 64;
    constexpr std::size_t count = 50;
    const centred_turbo codec{};
    std::vector<float> keys(count * dim);
    reference::fill_gaussian(keys, 1);
    for (std::size_t r = 0; r < count; ++r) {
        keys[r * dim + 10] += 60.0F;
        keys[r * dim + 33] -= 40.0F;
    }
    std::vector<float> mean(dim, 0.0F);
    if (centre) {
        mean_key(keys, dim, 4, mean);
    }
    std::vector<float> query(dim);
    reference::fill_gaussian(query, 2);
    double largest = 0;
    std::vector<float> row(dim);
    std::vector<std::byte> bytes(codec.group_bytes(dim));
    for (std::size_t r = 0; r < count; ++r) {
        for (std::size_t c = 0; c < dim; ++c) {
            row[c] = keys[r * dim + c] - mean[c];
        }
        EXPECT_TRUE(codec.encode(row, dim, bytes));
        codec.decode(bytes, dim, row);
        double logit = 0;
        double expected = 0;
        for (std::size_t c = 0; c < dim; ++c) {
            logit += double(query[c]) * (double(row[c]) + double(mean[c]));
            expected += double(query[c]) * double(keys[r * dim + c]);
        }
        largest = std::max(largest, std::abs(logit - expected));
    }
    return largest;
}

TEST(MeanCentred, SavesKeysWithALargeBias) {
    EXPECT_LT(error_of_logits(true), 0.25 * error_of_logits(false));
}

TEST(MeanCentred, AttentionAddsWhatWasSubtracted) {
    constexpr std::size_t dim = 64;
    constexpr std::size_t count = 70;
    const centred_turbo codec{.inner = {.seed = 1}};
    const dense_codec<float> dense{};
    std::vector<float> keys(count * dim);
    std::vector<float> values(count * dim);
    std::vector<float> query(dim);
    reference::fill_gaussian(keys, 1);
    reference::fill_gaussian(values, 2);
    reference::fill_gaussian(query, 3);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        keys[i] += i % dim == 5 ? 30.0F : 0.0F;
    }
    std::vector<float> mean(dim);
    mean_key(keys, dim, 4, mean);
    const std::size_t stride = codec.group_bytes(dim);
    std::vector<std::byte> stored(count * stride);
    std::vector<float> read(count * dim);
    for (std::size_t r = 0; r < count; ++r) {
        const std::span<float> row(keys.data() + r * dim, dim);
        for (std::size_t c = 0; c < dim; ++c) {
            row[c] -= mean[c];
        }
        const std::span<std::byte> bytes(stored.data() + r * stride, stride);
        ASSERT_TRUE(codec.encode(row, dim, bytes));
        const std::span<float> back(read.data() + r * dim, dim);
        codec.decode(bytes, dim, back);
        for (std::size_t c = 0; c < dim; ++c) {
            back[c] += mean[c];
        }
    }
    const row_kernels turbo_kernels = kernels_of(codec);
    const row_kernels dense_kernels = kernels_of(dense);
    const auto attended = [&](const attend_segment& segment) {
        const attend_head head(&segment, 1);
        const query_view queries(query, 1, 1, dim);
        std::vector<float> output(dim);
        std::vector<float> memory(attend_workspace(queries, {&head, 1}, dim));
        EXPECT_EQ(attend(queries, {&head, 1}, dim, output, memory), attend_status::done);
        return output;
    };
    attend_segment segment{};
    segment.count = count;
    segment.keys = {.data = stored.data(), .stride = stride};
    segment.key_kernels = &turbo_kernels;
    segment.values = {.data = reinterpret_cast<const std::byte*>(values.data()),
                      .stride = dim * sizeof(float)};
    segment.value_kernels = &dense_kernels;
    segment.key_mean = mean.data();
    attend_segment exact = segment;
    exact.keys = {.data = reinterpret_cast<const std::byte*>(read.data()),
                  .stride = dim * sizeof(float)};
    exact.key_kernels = &dense_kernels;
    exact.key_mean = nullptr;
    const std::vector<float> got = attended(segment);
    const std::vector<float> expected = attended(exact);
    for (std::size_t c = 0; c < dim; ++c) {
        EXPECT_NEAR(got[c], expected[c], 1e-4F);
    }
}

struct centred_case {
    static centred_turbo codec() { return {.inner = {.bits = 3}}; }
    static bool allows(std::size_t) { return true; }
    static std::size_t bytes(std::size_t dim) { return 2 + 3 * dim / 8; }
    static constexpr double gaussian_nmse = 0.0335;
    static constexpr double rough_nmse = 0.12;
};
using cases = testing::Types<centred_case>;
using namespace kvcrush::reference;
INSTANTIATE_TYPED_TEST_SUITE_P(MeanCentred, CodecProperties, cases);

} // namespace
