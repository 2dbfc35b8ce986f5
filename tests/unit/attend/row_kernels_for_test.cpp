// SPDX-License-Identifier: Apache-2.0
/// A codec from outside the library that brings kernels of its own.
#include <kvcrush/attend/any_codec.hpp>
#include <kvcrush/attend/attend.hpp>
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/hadamard.hpp>

#include "stored_cache.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <limits>
#include <string_view>
#include <vector>

namespace home_made {

/// Floats times a factor.
struct scaled_codec {
    static constexpr std::string_view name = "scaled";
    float factor = 8.0F;

    static constexpr auto parameters() {
        return kvcrush::parameter_list{kvcrush::parameter{"factor", &scaled_codec::factor, "of each float"}};
    }
    void validate() const noexcept {}
    void validate_for(std::size_t) const noexcept {}
    [[nodiscard]] static constexpr std::size_t group_size() noexcept { return 1; }
    [[nodiscard]] static constexpr std::size_t group_bytes(std::size_t dim) noexcept {
        return dim * sizeof(float);
    }
    [[nodiscard]] bool encode(std::span<const float> rows,
                              std::size_t dim,
                              std::span<std::byte> bytes,
                              kvcrush::simd::isa = kvcrush::simd::best()) const noexcept {
        for (std::size_t c = 0; c < dim; ++c) {
            const float scaled = factor * rows[c];
            std::memcpy(bytes.data() + c * sizeof scaled, &scaled, sizeof scaled);
        }
        return true;
    }
    void decode(std::span<const std::byte> bytes,
                std::size_t dim,
                std::span<float> rows,
                kvcrush::simd::isa = kvcrush::simd::best()) const noexcept {
        for (std::size_t c = 0; c < dim; ++c) {
            rows[c] = channel(bytes.data(), c) / factor;
        }
    }
    [[nodiscard]] static float channel(const std::byte* row, std::size_t c) noexcept {
        float scaled = 0.0F;
        std::memcpy(&scaled, row + c * sizeof scaled, sizeof scaled);
        return scaled;
    }
};

/// The same without kernels.
struct plain_codec : scaled_codec {};

struct calls {
    std::size_t dots = 0;
    std::size_t sums = 0;
};
calls counted;

void dots(const kvcrush::row_kernels& self,
          const kvcrush::tile_rows& rows,
          const float* prepared,
          std::size_t num_queries,
          std::size_t dim,
          float* out,
          float*) noexcept {
    ++counted.dots;
    const float factor = static_cast<const scaled_codec*>(self.codec)->factor;
    for (std::size_t q = 0; q < num_queries; ++q) {
        for (std::size_t t = 0; t < rows.count; ++t) {
            float sum = 0.0F;
            for (std::size_t c = 0; c < dim; ++c) {
                sum += prepared[q * dim + c] * scaled_codec::channel(rows.group[t], c);
            }
            out[q * kvcrush::attend_tile + t] = sum / factor;
        }
    }
}

void accumulate(const kvcrush::row_kernels& self,
                const kvcrush::tile_rows& rows,
                const float* weights,
                std::size_t num_queries,
                std::size_t dim,
                float* sums,
                float*) noexcept {
    ++counted.sums;
    const float factor = static_cast<const scaled_codec*>(self.codec)->factor;
    for (std::size_t q = 0; q < num_queries; ++q) {
        for (std::size_t t = 0; t < rows.count; ++t) {
            const float weight = weights[q * kvcrush::attend_tile + t] / factor;
            for (std::size_t c = 0; c < dim; ++c) {
                sums[q * dim + c] += weight * scaled_codec::channel(rows.group[t], c);
            }
        }
    }
}

} // namespace home_made

template <>
struct kvcrush::row_kernels_for<home_made::scaled_codec> {
    static void
    take(const home_made::scaled_codec&, kvcrush::arithmetic, kvcrush::row_kernels& table) {
        table.dots = home_made::dots;
        table.accumulate = home_made::accumulate;
    }
};

namespace kvcrush {
namespace {

/// Calls of the codec's own kernels while `num_queries` queries of 2 heads look at 70 rows. The answer is right.
template <typename C>
home_made::calls
calls_for(const C& codec, std::size_t num_queries, std::size_t decoding_from = 24) {
    const dense_codec<float> floats{};
    reference::stored_cache cache(32, 32, simd::best());
    cache.begin_head();
    row_kernels table = kernels_of(codec);
    table.decoding_from = decoding_from;
    cache.add_segment_of(codec, codec, 70, reference::placing::in_a_row, false, 1.0F, table, table);
    cache.add_segment(floats, floats, 2);
    home_made::counted = {};
    reference::expect_exact(cache, 2, num_queries, "home-made codec", 3e-5);
    return home_made::counted;
}

TEST(RowKernelsFor, ACodecFromOutsideUsesItsOwn) {
    const home_made::calls made = calls_for(home_made::scaled_codec{}, 1);
    EXPECT_EQ(made.dots, 2U) << "two tiles";
    EXPECT_EQ(made.sums, 2U);
}

TEST(RowKernelsFor, AreUsedForRowsThatAnotherCodecTurns) {
    EXPECT_EQ(calls_for(hadamard_codec<home_made::scaled_codec>{}, 1).dots, 2U);
}

TEST(RowKernelsFor, AreUsedByCodecsChosenWhenAProgramRuns) {
    const any_codec any = home_made::scaled_codec{};
    EXPECT_EQ(any.kernels().dots, home_made::dots);
    EXPECT_EQ(any.kernels(arithmetic::integer).accumulate, home_made::accumulate);
}

TEST(RowKernelsFor, OtherCodecsAreDecoded) {
    EXPECT_EQ(calls_for(home_made::plain_codec{}, 1).dots, 0U);
}

TEST(RowKernelsFor, ManyQueriesDecodeUnlessTheTableSaysOtherwise) {
    EXPECT_EQ(calls_for(home_made::scaled_codec{}, 11).dots, 2U);
    EXPECT_EQ(calls_for(home_made::scaled_codec{}, 12).dots, 0U) << "24 query rows";
    EXPECT_EQ(calls_for(home_made::scaled_codec{}, 40).dots, 0U);
    constexpr std::size_t never = std::numeric_limits<std::size_t>::max();
    EXPECT_EQ(calls_for(home_made::scaled_codec{}, 40, never).dots, 2U);
}

} // namespace
} // namespace kvcrush
