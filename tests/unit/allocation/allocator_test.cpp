// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/allocation/ada_kv.hpp>
#include <kvcrush/allocation/allocator.hpp>
#include <kvcrush/allocation/fixed_counts.hpp>
#include <kvcrush/allocation/uniform.hpp>
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/select/top_k.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace kvcrush {
namespace {

struct policy_parts {
    static constexpr std::string_view name = "test";
    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}
};

struct may_throw : policy_parts {
    void allocate(const_head_scores, const areas&, std::size_t, std::span<std::size_t>) const {}
};
struct returns_something : policy_parts {
    int
    allocate(const_head_scores, const areas&, std::size_t, std::span<std::size_t>) const noexcept {
        return 0;
    }
};
struct memory_of_unknown_size : policy_parts {
    void allocate(const_head_scores,
                  const areas&,
                  std::size_t,
                  std::span<std::size_t>,
                  scratch) const noexcept {}
};
struct not_const : policy_parts {
    void allocate(const_head_scores, const areas&, std::size_t, std::span<std::size_t>) noexcept {}
};

static_assert(Allocator<uniform_allocator> && !ScratchAllocator<uniform_allocator>);
static_assert(Allocator<ada_kv_allocator> && !PlainAllocator<ada_kv_allocator>);
static_assert(Allocator<fixed_counts>);
static_assert(!Allocator<may_throw>);
static_assert(!Allocator<returns_something>);
static_assert(!Allocator<memory_of_unknown_size>);
static_assert(!Allocator<not_const>);
static_assert(!Allocator<policy_parts>);

/// Gives the first head too little and the second too much, and writes to all memory it asked for.
struct greedy : policy_parts {
    std::size_t bytes = 1000;

    [[nodiscard]] std::size_t scratch_bytes(const problem_size&) const noexcept {
        return scratch::bytes<unsigned char>(bytes);
    }
    void allocate(const_head_scores,
                  const areas&,
                  std::size_t,
                  std::span<std::size_t> counts,
                  scratch memory) const noexcept {
        for (unsigned char& byte : memory.take<unsigned char>(bytes)) {
            byte = 255;
        }
        counts[0] = 0;
        counts[1] = 1000000;
    }
};

struct cache {
    kv_shape shape{2, 50, 4, 4};
    std::vector<float> keys = std::vector<float>(2 * 50 * 4, 1.0F);

    [[nodiscard]] kv_view<float> kv() { return {keys, keys, shape}; }
};

TEST(Allocator, CountsStayBetweenProtectedTokensAndSequence) {
    cache data;
    compressor crush(knorm_scorer{}, top_k_selector{}, greedy{});
    crush.plan({data.shape, 0}, budget::tokens(20, {2, 8}));
    const selection& kept = crush.select(data.kv());
    EXPECT_EQ(kept.kept(0).size(), 10U);
    EXPECT_EQ(kept.kept(1).size(), 50U);
    EXPECT_EQ(crush.tokens_per_head(), 20U);
}

TEST(Allocator, ItsMemoryIsPlanned) {
    cache data;
    compressor crush(knorm_scorer{}, top_k_selector{}, greedy{});
    crush.plan({data.shape, 0}, budget::tokens(20, {2, 8}));
    greedy hungry;
    hungry.bytes = 1 << 20;
    crush.set_allocator(hungry);
    EXPECT_EQ(crush.select(data.kv()).total(), 60U);
    EXPECT_EQ(crush.allocator().bytes, hungry.bytes);
}

TEST(FixedCounts, AreWhatEachHeadKeeps) {
    cache data;
    const std::array<std::size_t, 2> first{12, 40};
    const std::array<std::size_t, 2> second{30, 0};
    compressor crush(knorm_scorer{}, top_k_selector{}, fixed_counts{first});
    crush.plan({data.shape, 0}, budget::keep_ratio(1.0, {2, 8}));
    const selection kept = crush.select(data.kv());
    EXPECT_EQ(kept.kept(0).size(), 12U);
    EXPECT_EQ(kept.kept(1).size(), 40U);
    crush.set_allocator(fixed_counts{second});
    EXPECT_EQ(crush.select(data.kv()).kept(0).size(), 30U);
    EXPECT_EQ(crush.select(data.kv()).kept(1).size(), 10U) << "sinks and recent tokens stay";
}

TEST(FixedCounts, RefuseAnotherNumberOfHeads) {
    cache data;
    const std::array<std::size_t, 3> three{12, 40, 7};
    const std::array<std::size_t, 2> two{12, 40};
    compressor crush(knorm_scorer{}, top_k_selector{}, fixed_counts{three});
    try {
        crush.plan({data.shape, 0}, budget::tokens(50));
        FAIL();
    } catch (const std::invalid_argument& error) {
        EXPECT_EQ(std::string(error.what()),
                  "kvcrush::fixed_counts: 3 counts are given; the layer has 2 kv heads");
    }
    crush.set_allocator(fixed_counts{two});
    crush.plan({data.shape, 0}, budget::tokens(50));
    EXPECT_THROW(crush.set_allocator(fixed_counts{three}), std::invalid_argument);
    EXPECT_EQ(crush.allocator().counts.size(), 2U) << "the old one stays";
}

} // namespace
} // namespace kvcrush
