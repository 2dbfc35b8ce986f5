// SPDX-License-Identifier: Apache-2.0
/// @file
/// What every codec promises, as a typed suite. A codec's test describes it by a struct and lists it:
///
///     struct q8_0_case {
///         static q8_0_codec codec() { return {}; }
///         static bool allows(std::size_t dim) { return dim % 32 == 0; }         // of 64, 80, 96, 128, 256
///         static std::size_t bytes(std::size_t dim) { return dim / 32 * 34; }   // of a group
///         static constexpr double gaussian_nmse = 2.8e-5;  // within 5 %; 0 if no figure is known
///         static constexpr double rough_nmse = 1e-4;       // bound for constant rows and rows with one outlier
///     };
///     using cases = testing::Types<q8_0_case>;
///     INSTANTIATE_TYPED_TEST_SUITE_P(Ggml, CodecProperties, cases);
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/isa.hpp>

#include "reference/guarded_buffer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <numbers>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush::reference {

inline constexpr std::size_t usual_dims[] = {64, 80, 96, 128, 256};

/// N(0, 1), the same everywhere.
[[nodiscard]] inline float gaussian(std::uint64_t seed, std::uint64_t index) {
    const double u = 1.0 - static_cast<double>(random_unit(seed, 0, index));
    const double v = static_cast<double>(random_unit(seed, 1, index));
    return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v));
}

[[nodiscard]] inline std::vector<float> gaussian_rows(std::size_t size, std::uint64_t seed) {
    std::vector<float> rows(size);
    for (std::size_t i = 0; i < size; ++i) {
        rows[i] = gaussian(seed, i);
    }
    return rows;
}

struct named_rows {
    std::string name;
    std::vector<float> rows;
};

/// Rows that codecs meet in models, and some that they do not.
[[nodiscard]] inline std::vector<named_rows> kinds_of_rows(std::size_t size) {
    std::vector<named_rows> kinds;
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
        kinds.push_back({"gaussian " + std::to_string(seed), gaussian_rows(size, seed)});
    }
    for (const float factor : {1e4F, 1e-4F, 1e-7F, 1e-12F}) {
        std::vector<float> scaled = gaussian_rows(size, 8);
        for (float& value : scaled) {
            value *= factor;
        }
        kinds.push_back({"gaussian times " + std::to_string(factor), scaled});
    }
    for (const float value : {0.0F, -0.0F, 3.0F, -0.7F, 6e4F}) {
        kinds.push_back({"all " + std::to_string(value), std::vector<float>(size, value)});
    }
    std::vector<float> zeros(size);
    std::vector<float> few_values(size);
    std::vector<float> positive = gaussian_rows(size, 9);
    std::vector<float> outlier = gaussian_rows(size, 10);
    std::vector<float> spike(size);
    std::vector<float> shifted = gaussian_rows(size, 11);
    std::vector<float> denormal(size);
    std::vector<float> least(size);
    std::vector<float> mixed = gaussian_rows(size, 12);
    for (std::size_t i = 0; i < size; ++i) {
        const std::uint64_t bits = random_bits(13, 0, i);
        zeros[i] = bits % 2 == 0 ? 0.0F : -0.0F;
        few_values[i] = (static_cast<float>(bits % 9) - 4.0F) * 0.5F;
        positive[i] = bits % 3 == 0 ? zeros[i] : std::abs(positive[i]);
        shifted[i] += 40.0F;
        denormal[i] = mixed[i] * 1e-39F;
        least[i] = (bits % 2 == 0 ? 1.0F : -1.0F) * static_cast<float>(bits % 7) *
                   std::numeric_limits<float>::denorm_min();
        mixed[i] *= std::exp2(static_cast<float>(bits % 40) - 30.0F);
    }
    outlier[size / 3] = -2e4F;
    spike[size / 2] = 1e4F;
    kinds.push_back({"zeros of both signs", zeros});
    kinds.push_back({"few values", few_values});
    kinds.push_back({"nothing negative", positive});
    kinds.push_back({"an outlier", outlier});
    kinds.push_back({"a spike", spike});
    kinds.push_back({"far from 0", shifted});
    kinds.push_back({"denormals", denormal});
    kinds.push_back({"the least denormals", least});
    kinds.push_back({"many magnitudes", mixed});
    return kinds;
}

/// Sum of squared errors over sum of squares.
[[nodiscard]] inline double relative_error(const std::vector<float>& rows,
                                           const std::vector<float>& decoded) {
    double errors = 0.0;
    double squares = 0.0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const double error = static_cast<double>(decoded[i]) - static_cast<double>(rows[i]);
        errors += error * error;
        squares += static_cast<double>(rows[i]) * static_cast<double>(rows[i]);
    }
    return errors / squares;
}

/// The bits, so that signs of zeros count.
[[nodiscard]] inline std::vector<std::uint32_t> bits_of(std::span<const float> values) {
    std::vector<std::uint32_t> bits(values.size());
    std::transform(values.begin(), values.end(), bits.begin(), [](float value) {
        return std::bit_cast<std::uint32_t>(value);
    });
    return bits;
}

struct stored_group {
    bool stored = false;
    std::vector<std::byte> bytes;
};

/// One group, encoded between pages that may not be touched, over bytes that were `before`.
template <Codec C>
[[nodiscard]] stored_group encode_group(const C& codec,
                                        std::span<const float> rows,
                                        std::size_t dim,
                                        simd::isa rung = simd::best(),
                                        std::byte before = std::byte{0xA5}) {
    guarded_buffer<float> in(rows.size());
    std::copy(rows.begin(), rows.end(), in.span().begin());
    guarded_buffer<std::byte> out(codec.group_bytes(dim));
    std::fill(out.span().begin(), out.span().end(), before);
    const bool stored = codec.encode(in.span(), dim, out.span(), rung);
    return {stored, {out.span().begin(), out.span().end()}};
}

template <Codec C>
[[nodiscard]] std::vector<float> decode_group(const C& codec,
                                              std::span<const std::byte> bytes,
                                              std::size_t dim,
                                              simd::isa rung = simd::best()) {
    guarded_buffer<std::byte> in(bytes.size());
    std::copy(bytes.begin(), bytes.end(), in.span().begin());
    guarded_buffer<float> out(codec.group_size() * dim);
    codec.decode(in.span(), dim, out.span(), rung);
    return {out.span().begin(), out.span().end()};
}

template <Codec C>
[[nodiscard]] std::vector<float>
there_and_back(const C& codec, std::span<const float> rows, std::size_t dim) {
    const auto group = encode_group(codec, rows, dim);
    EXPECT_TRUE(group.stored);
    return decode_group(codec, group.bytes, dim);
}

template <typename Case>
class CodecProperties : public testing::Test {
protected:
    /// Allowed dims of usual_dims.
    static std::vector<std::size_t> dims() {
        std::vector<std::size_t> allowed;
        std::copy_if(std::begin(usual_dims),
                     std::end(usual_dims),
                     std::back_inserter(allowed),
                     [](std::size_t dim) { return Case::allows(dim); });
        return allowed;
    }
};
TYPED_TEST_SUITE_P(CodecProperties);

TYPED_TEST_P(CodecProperties, NamesTheDimThatItRefuses) {
    const auto codec = TypeParam::codec();
    ASSERT_NO_THROW(codec.validate());
    for (const std::size_t dim : usual_dims) {
        if (TypeParam::allows(dim)) {
            EXPECT_NO_THROW(codec.validate_for(dim)) << dim;
            continue;
        }
        try {
            codec.validate_for(dim);
            ADD_FAILURE() << dim << " was taken";
        } catch (const std::invalid_argument& error) {
            EXPECT_NE(std::string(error.what()).find(std::to_string(dim)), std::string::npos)
                << error.what();
        }
    }
    EXPECT_THROW(codec.validate_for(0), std::invalid_argument);
}

TYPED_TEST_P(CodecProperties, TakesAsManyBytesAsItsFormulaSays) {
    const auto codec = TypeParam::codec();
    for (const std::size_t dim : this->dims()) {
        EXPECT_EQ(codec.group_bytes(dim), TypeParam::bytes(dim)) << dim;
        EXPECT_EQ(encoded_bytes(codec, 5 * codec.group_size(), dim), 5 * TypeParam::bytes(dim));
    }
}

TYPED_TEST_P(CodecProperties, EncodesAGroupByItsOwnRowsAlone) {
    const auto codec = TypeParam::codec();
    for (const std::size_t dim : this->dims()) {
        const std::size_t size = codec.group_size() * dim;
        constexpr std::size_t num_groups = 5;
        const std::vector<float> rows = gaussian_rows(num_groups * size, 21);
        std::vector<std::vector<std::byte>> forwards;
        for (std::size_t g = 0; g < num_groups; ++g) {
            const auto group =
                encode_group(codec, std::span(rows).subspan(g * size, size), dim, simd::best());
            ASSERT_TRUE(group.stored);
            forwards.push_back(group.bytes);
        }
        for (std::size_t g = num_groups; g-- > 0;) {
            const auto own = TypeParam::codec();
            const auto group = encode_group(
                own, std::span(rows).subspan(g * size, size), dim, simd::best(), std::byte{0});
            // Equal over different bytes before: every byte is written, too.
            EXPECT_EQ(group.bytes, forwards[g]) << "dim " << dim << ", group " << g;
        }
    }
}

TYPED_TEST_P(CodecProperties, StoresZerosAsZeros) {
    const auto codec = TypeParam::codec();
    for (const std::size_t dim : this->dims()) {
        const std::vector<float> rows(codec.group_size() * dim);
        for (const float value : there_and_back(codec, rows, dim)) {
            ASSERT_EQ(value, 0.0F) << dim;
        }
    }
}

TYPED_TEST_P(CodecProperties, StoresConstantRows) {
    const auto codec = TypeParam::codec();
    for (const std::size_t dim : this->dims()) {
        for (const float value : {1.0F, -0.37F, 1000.0F}) {
            const std::vector<float> rows(codec.group_size() * dim, value);
            EXPECT_LE(relative_error(rows, there_and_back(codec, rows, dim)), TypeParam::rough_nmse)
                << "dim " << dim << ", value " << value;
        }
    }
}

TYPED_TEST_P(CodecProperties, StoresAHugeOutlier) {
    const auto codec = TypeParam::codec();
    for (const std::size_t dim : this->dims()) {
        for (const float value : {1e4F, -1e4F}) {
            std::vector<float> rows = gaussian_rows(codec.group_size() * dim, 22);
            rows[rows.size() - 3] = value;
            EXPECT_LE(relative_error(rows, there_and_back(codec, rows, dim)), TypeParam::rough_nmse)
                << "dim " << dim << ", value " << value;
        }
    }
}

TYPED_TEST_P(CodecProperties, StoresDenormalsAsNearlyNothing) {
    const auto codec = TypeParam::codec();
    for (const std::size_t dim : this->dims()) {
        for (const float factor : {1e-39F, 1e-42F, std::numeric_limits<float>::denorm_min()}) {
            std::vector<float> rows = gaussian_rows(codec.group_size() * dim, 23);
            for (float& value : rows) {
                value *= factor;
            }
            for (const float value : there_and_back(codec, rows, dim)) {
                ASSERT_LE(std::abs(value), 1e-30F) << "dim " << dim << ", times " << factor;
            }
        }
    }
}

TYPED_TEST_P(CodecProperties, RefusesNanAndInfinityAndWritesNothing) {
    const auto codec = TypeParam::codec();
    constexpr float infinity = std::numeric_limits<float>::infinity();
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    for (const auto rung : {simd::isa::scalar, simd::isa::avx2, simd::isa::avx512}) {
        for (const std::size_t dim : this->dims()) {
            const std::vector<float> rows = gaussian_rows(codec.group_size() * dim, 24);
            for (const float bad : {nan, -nan, infinity, -infinity}) {
                for (const std::size_t at : std::initializer_list<std::size_t>{
                         0, 7, 31, dim / 2, rows.size() / 2 + 1, rows.size() - 1}) {
                    std::vector<float> broken = rows;
                    broken[at] = bad;
                    const auto group = encode_group(codec, broken, dim, rung, std::byte{0x5A});
                    EXPECT_FALSE(group.stored) << bad << " at " << at << ", dim " << dim;
                    EXPECT_TRUE(std::all_of(group.bytes.begin(),
                                            group.bytes.end(),
                                            [](std::byte b) { return b == std::byte{0x5A}; }))
                        << bad << " at " << at << ", dim " << dim;
                }
            }
        }
    }
}

TYPED_TEST_P(CodecProperties, LosesAsMuchOfGaussianRowsAsTheFormatDoes) {
    if (TypeParam::gaussian_nmse == 0.0 || !TypeParam::allows(128)) {
        GTEST_SKIP() << "no figure is known";
    }
    const auto codec = TypeParam::codec();
    constexpr std::size_t dim = 128;
    const std::size_t size = codec.group_size() * dim;
    const std::size_t num_groups = (600 + codec.group_size() - 1) / codec.group_size();
    const std::vector<float> rows = gaussian_rows(num_groups * size, 25);
    std::vector<float> decoded;
    for (std::size_t g = 0; g < num_groups; ++g) {
        const auto group = there_and_back(codec, std::span(rows).subspan(g * size, size), dim);
        decoded.insert(decoded.end(), group.begin(), group.end());
    }
    const double nmse = relative_error(rows, decoded);
    EXPECT_NEAR(nmse, TypeParam::gaussian_nmse, 0.05 * TypeParam::gaussian_nmse);
}

TYPED_TEST_P(CodecProperties, GivesTheSameBitsOnEveryRung) {
    const auto codec = TypeParam::codec();
    for (const std::size_t dim : this->dims()) {
        for (const auto& [name, rows] : kinds_of_rows(codec.group_size() * dim)) {
            const auto wanted = encode_group(codec, rows, dim, simd::isa::scalar);
            const auto floats = wanted.stored
                                    ? decode_group(codec, wanted.bytes, dim, simd::isa::scalar)
                                    : std::vector<float>{};
            for (const auto rung : {simd::isa::avx2, simd::isa::avx512}) {
                const auto found = encode_group(codec, rows, dim, rung);
                ASSERT_EQ(found.stored, wanted.stored) << name << ", dim " << dim;
                ASSERT_EQ(found.bytes, wanted.bytes)
                    << name << ", dim " << dim << ", " << simd::name_of(rung);
                if (wanted.stored) {
                    ASSERT_EQ(bits_of(decode_group(codec, wanted.bytes, dim, rung)),
                              bits_of(floats))
                        << name << ", dim " << dim << ", " << simd::name_of(rung);
                }
            }
        }
    }
}

REGISTER_TYPED_TEST_SUITE_P(CodecProperties,
                            NamesTheDimThatItRefuses,
                            TakesAsManyBytesAsItsFormulaSays,
                            EncodesAGroupByItsOwnRowsAlone,
                            StoresZerosAsZeros,
                            StoresConstantRows,
                            StoresAHugeOutlier,
                            StoresDenormalsAsNearlyNothing,
                            RefusesNanAndInfinityAndWritesNothing,
                            LosesAsMuchOfGaussianRowsAsTheFormatDoes,
                            GivesTheSameBitsOnEveryRung);

} // namespace kvcrush::reference
