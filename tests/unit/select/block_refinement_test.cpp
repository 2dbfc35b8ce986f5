// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/select/block_refinement.hpp>

#include "reference/guarded_buffer.hpp"
#include "reference/openvino_compat.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

using blocks = std::vector<std::uint32_t>;

template <typename Score>
blocks retain(const block_refinement& policy,
              const std::vector<Score>& scores,
              const blocks& evicted,
              std::size_t budget) {
    blocks out(std::min(evicted.size(), budget));
    test::owned_scratch memory(policy.scratch_bytes(scores.size()));
    const std::size_t count = policy.retain(
        std::span<const Score>(scores), evicted, budget, std::span(out), memory.get());
    EXPECT_EQ(count, out.size());
    return out;
}

/// Known answer 1b of the specification: six blocks of two tokens, four of them to be evicted.
template <typename Score>
blocks known(anchor_kind kind) {
    const std::vector<Score> scores{8, 1, 2, 9, 1, 1, 6, 7, 3, 2, 5, 4};
    return retain(
        block_refinement{.block_size = 2, .anchor = {.kind = kind}}, scores, {0, 1, 2, 4}, 2);
}

TEST(BlockRefinement, KnownAnswers) {
    EXPECT_EQ(known<float>(anchor_kind::zeros), (blocks{2, 0}));
    EXPECT_EQ(known<float>(anchor_kind::alternate), (blocks{1, 4}));
    EXPECT_EQ(known<float>(anchor_kind::ones), (blocks{0, 2}));
    EXPECT_EQ(known<float>(anchor_kind::mean), (blocks{2, 0}));
    EXPECT_EQ(known<double>(anchor_kind::zeros), (blocks{2, 0}));
    EXPECT_EQ(known<double>(anchor_kind::alternate), (blocks{1, 4}));
    EXPECT_EQ(known<double>(anchor_kind::ones), (blocks{0, 2}));
    EXPECT_EQ(known<double>(anchor_kind::mean), (blocks{2, 0}));
}

TEST(BlockRefinement, EveryBlockSizeTypeAndAnchorMatchesTheReference) {
    for (const std::size_t size : std::initializer_list<std::size_t>{
             1, 2, 7, 8, 9, 15, 16, 17, 24, 32, 33, 63, 64, 65, 100, 128, 255, 256, 257, 4096}) {
        const std::size_t num_blocks = 40;
        std::vector<float> scores;
        for (std::size_t t = 0; t < size * num_blocks; ++t) {
            scores.push_back(random_unit(5, size, t));
        }
        blocks evicted;
        for (std::uint32_t block = 0; block < num_blocks; ++block) {
            if (random_bits(6, size, block) % 3 != 0) {
                evicted.push_back(block);
            }
        }
        const std::vector<double> doubles(scores.begin(), scores.end());
        const reference::counts bits = reference::indicators(doubles);
        for (const anchor_kind kind :
             {anchor_kind::zeros, anchor_kind::ones, anchor_kind::mean, anchor_kind::alternate}) {
            std::mt19937 unused;
            const reference::counts distances = reference::block_distances(
                bits,
                reference::block_anchor(std::string(name_of(kind)), bits, size, unused),
                size);
            for (const std::size_t budget : std::initializer_list<std::size_t>{0, 1, 4, 20, 99}) {
                const reference::counts expected = reference::step_picks(
                    distances, reference::counts(evicted.begin(), evicted.end()), budget);
                const block_refinement policy{.block_size = size, .anchor = {.kind = kind}};
                const blocks wanted(expected.begin(), expected.end());
                EXPECT_EQ(retain(policy, scores, evicted, budget), wanted)
                    << size << " " << name_of(kind);
                EXPECT_EQ(retain(policy, doubles, evicted, budget), wanted)
                    << size << " " << name_of(kind);
            }
        }
    }
}

TEST(BlockRefinement, TheAnchorMayBeGiven) {
    const block_refinement policy{.block_size = 2};
    const std::vector<float> scores{8, 1, 2, 9, 1, 1, 6, 7, 3, 2, 5, 4};
    const blocks evicted{0, 1, 2, 4};
    const std::vector<std::uint64_t> alternate{2};
    blocks out(2);
    test::owned_scratch memory(policy.scratch_bytes(scores.size()));
    policy.retain(std::span<const float>(scores),
                  evicted,
                  2,
                  std::span<const std::uint64_t>(alternate),
                  std::span(out),
                  memory.get());
    EXPECT_EQ(out, (blocks{1, 4}));
}

TEST(BlockRefinement, WithFewerThanTwoCandidatesPerPickTheNearestStay) {
    const block_refinement policy{.block_size = 1, .anchor = {.kind = anchor_kind::ones}};
    const std::vector<float> scores{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    blocks all(10);
    std::iota(all.begin(), all.end(), 0U);
    EXPECT_EQ(retain(policy, scores, all, 6), (blocks{5, 6, 7, 8, 9, 0}));
    EXPECT_EQ(retain(policy, scores, all, 4), (blocks{5, 7, 9, 1})); // order 5..9, 0..4; step 2
    EXPECT_EQ(retain(policy, scores, all, 10), (blocks{5, 6, 7, 8, 9, 0, 1, 2, 3, 4}));
}

TEST(BlockRefinement, NothingToEvictOrToKeep) {
    const block_refinement policy{.block_size = 4};
    EXPECT_EQ(retain(policy, std::vector<float>(8, 1.0F), {}, 3), blocks{});
    EXPECT_EQ(retain(policy, std::vector<float>(8, 1.0F), {0, 1}, 0), blocks{});
    EXPECT_EQ(retain(policy, std::vector<float>{}, {}, 3), blocks{});
}

TEST(BlockRefinement, NeedsNoMoreMemoryThanItAsksFor) {
    for (const std::size_t size : std::initializer_list<std::size_t>{1, 3, 16, 17, 64, 300}) {
        const block_refinement policy{.block_size = size, .anchor = {.kind = anchor_kind::mean}};
        for (const std::size_t count : std::initializer_list<std::size_t>{1, 2, 7, 64}) {
            const std::vector<double> scores(size * count, 1.0);
            blocks all(count);
            std::iota(all.begin(), all.end(), 0U);
            blocks out(count);
            reference::guarded_buffer<std::byte> memory(policy.scratch_bytes(scores.size()));
            policy.retain(std::span<const double>(scores),
                          all,
                          count,
                          std::span(out),
                          scratch{memory.span()});
            std::sort(out.begin(), out.end());
            EXPECT_EQ(out, all);
        }
    }
}

TEST(BlockRefinement, RefusesSizesOutsideTheRange) {
    EXPECT_NO_THROW(block_refinement{}.validate());
    EXPECT_NO_THROW(block_refinement{.block_size = 4096}.validate());
    for (const std::size_t size : std::initializer_list<std::size_t>{0, 4097}) {
        try {
            block_refinement{.block_size = size}.validate();
            FAIL();
        } catch (const std::invalid_argument& error) {
            EXPECT_EQ(std::string(error.what()),
                      "kvcrush::block_refinement: block_size is " + std::to_string(size) +
                          "; it must lie in [1, 4096]");
        }
    }
    EXPECT_THROW(block_refinement{.anchor = {.count = 2}}.validate(), std::invalid_argument);
}

TEST(BlockRefinement, AnchorBitsBehindTheBlockAreLeftAside) {
    for (const std::size_t block_size : std::initializer_list<std::size_t>{5, 12, 40, 100}) {
        const block_refinement refine{.block_size = block_size};
        std::vector<float> scores(8 * block_size);
        for (std::size_t i = 0; i < scores.size(); ++i) {
            scores[i] = random_unit(3, block_size, i);
        }
        const std::vector<std::uint32_t> leaving{0, 1, 2, 3, 4, 5, 6, 7};
        const std::size_t words = (block_size + 63) / 64;
        std::vector<std::uint64_t> clean(words, ~std::uint64_t{0});
        clean.back() = (std::uint64_t{1} << (block_size % 64)) - 1;
        const std::vector<std::uint64_t> stray(words, ~std::uint64_t{0});
        std::vector<std::uint32_t> expected(4);
        std::vector<std::uint32_t> kept(4);
        test::owned_scratch memory(refine.scratch_bytes(scores.size()));
        const std::span<const float> all(scores);
        refine.retain(all, leaving, 4, clean, std::span<std::uint32_t>(expected), memory.get());
        refine.retain(all, leaving, 4, stray, std::span<std::uint32_t>(kept), memory.get());
        EXPECT_EQ(kept, expected) << block_size;
    }
}

} // namespace
} // namespace kvcrush
