// SPDX-License-Identifier: Apache-2.0
/// @file
/// Which of the blocks that are about to be evicted stay after all: the heart of form C, without any state.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/grouping/anchor.hpp>
#include <kvcrush/grouping/distance_order.hpp>
#include <kvcrush/grouping/step.hpp>
#include <kvcrush/select/best_tokens.hpp>
#include <kvcrush/simd/bitmap.hpp>
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/hamming.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Takes representatives among the blocks that an importance-based policy would evict.
///
///     1. indicators  = the best floor(tokens / 2) tokens, by raw score
///     2. portrait    = the indicators of a block's tokens, block_size bits
///     3. distance    = Hamming distance of the portrait to the anchor
///     4. candidates  = the blocks to evict, by (distance, index)
///     5. retained    = candidates i * floor(candidates / picks), picks = min(candidates, budget)
///
/// The budget comes on top of what the policy keeps. The step is a whole number: the far end of the order is never
/// reached, and with fewer than two candidates per pick the nearest ones are taken, wherever the others lie.
/// @note Linear in tokens. The anchor `mean` nearly doubles the time, the others cost nothing.
/// @see  OpenVINO GenAI's KVCrush. Deviation: equal scores and equal distances prefer the earlier token and block,
///       where its partial_sort and sort leave the order open.
struct block_refinement {
    static constexpr std::string_view name = "block_refinement";

    /// Tokens per block, 1 to 4096. OpenVINO GenAI uses 32 on CPUs and 16 on GPUs.
    std::size_t block_size = 32;
    /// What portraits are compared with. `random` draws from the seed, the same code at every call; the generator of
    /// OpenVINO GenAI goes on from call to call instead, see openvino_evictor.
    kvcrush::anchor anchor{.kind = anchor_kind::zeros};

    static constexpr auto parameters() {
        return parameter_list{
            parameter{"block_size", &block_refinement::block_size, "tokens per block"}};
    }

    /// @throws std::invalid_argument if block_size lies outside [1, 4096], if there are several anchors, or from the
    ///         anchor
    void validate() const {
        detail::require(block_size >= 1 && block_size <= max_block_size,
                        "block_refinement: block_size is ",
                        block_size,
                        "; it must lie in [1, ",
                        max_block_size,
                        "]");
        anchor.validate();
        detail::require(anchor.count == 1,
                        "block_refinement: the number of anchors is ",
                        anchor.count,
                        "; this form has 1");
    }

    /// Enough for scores of either type.
    [[nodiscard]] std::size_t scratch_bytes(std::size_t num_tokens) const noexcept {
        const std::size_t blocks = num_tokens / block_size;
        const std::size_t words = simd::words_per_code<std::uint64_t>(block_size);
        return scratch::bytes<std::uint64_t>(simd::bitmap_words(num_tokens)) +
               detail::mark_best_scratch_bytes<double>(num_tokens) +
               scratch::bytes<std::uint64_t>(blocks * words) +
               scratch::bytes<std::uint64_t>(words) + 2 * scratch::bytes<std::uint16_t>(blocks) +
               scratch::bytes<std::uint64_t>(simd::bitmap_words(blocks)) +
               scratch::bytes<std::uint32_t>(block_size + 1) + scratch::bytes<token_index>(blocks);
    }

    /// Chooses the blocks that stay.
    /// @param[in]  scores   [blocks * block_size] of the tokens that compete; NaN is the lowest
    /// @param[in]  leaving  blocks, ascending, that would go
    /// @param[in]  budget   blocks to keep of those
    /// @param[out] out      at least min(leaving.size(), budget) blocks, nearest to the anchor first
    /// @param      memory   scratch_bytes(scores.size())
    /// @return     min(leaving.size(), budget)
    /// @pre        scores.size() is a multiple of block_size and below 2^32
    template <ScoreValue Score>
    std::size_t retain(std::span<const Score> scores,
                       std::span<const std::uint32_t> leaving,
                       std::size_t budget,
                       std::span<std::uint32_t> out,
                       scratch memory) const noexcept {
        return retain_with(scores, leaving, budget, {}, out, memory);
    }

    /// The same with an anchor of the caller's.
    /// @param[in]  anchor_code  block_size bits, bit i of word i / 64 being that of the i-th token of a block;
    ///                          bits above are left aside
    template <ScoreValue Score>
    std::size_t retain(std::span<const Score> scores,
                       std::span<const std::uint32_t> leaving,
                       std::size_t budget,
                       std::span<const std::uint64_t> anchor_code,
                       std::span<std::uint32_t> out,
                       scratch memory) const noexcept {
        KVCRUSH_ASSERT(anchor_code.size() == simd::words_per_code<std::uint64_t>(block_size));
        return retain_with(scores, leaving, budget, anchor_code, out, memory);
    }

private:
    static constexpr std::size_t max_block_size = 4096; // as wide as simd::hamming_many goes

    template <typename Score>
    std::size_t retain_with(std::span<const Score> scores,
                            std::span<const std::uint32_t> leaving,
                            std::size_t budget,
                            std::span<const std::uint64_t> anchor_code,
                            std::span<std::uint32_t> out,
                            scratch memory) const noexcept {
        KVCRUSH_ASSERT(scores.size() % block_size == 0);
        const std::size_t picks = (std::min)(leaving.size(), budget);
        KVCRUSH_ASSERT(out.size() >= picks);
        if (picks == 0) {
            return 0;
        }
        const std::span<std::uint64_t> indicators =
            memory.take<std::uint64_t>(simd::bitmap_words(scores.size()));
        detail::mark_best(scores, scores.size() / 2, indicators, memory);
        out = out.first(picks);
        if (block_size <= 8) {
            pick<std::uint8_t, std::uint8_t>(
                indicators, scores.size(), leaving, anchor_code, out, memory);
        } else if (block_size <= 16) {
            pick<std::uint16_t, std::uint8_t>(
                indicators, scores.size(), leaving, anchor_code, out, memory);
        } else if (block_size <= 32) {
            pick<std::uint32_t, std::uint8_t>(
                indicators, scores.size(), leaving, anchor_code, out, memory);
        } else if (block_size <= 255) {
            pick<std::uint64_t, std::uint8_t>(
                indicators, scores.size(), leaving, anchor_code, out, memory);
        } else {
            pick<std::uint64_t, std::uint16_t>(
                indicators, scores.size(), leaving, anchor_code, out, memory);
        }
        return picks;
    }

    template <simd::CodeWord Code, simd::Distance Distance>
    void pick(std::span<const std::uint64_t> indicators,
              std::size_t num_tokens,
              std::span<const std::uint32_t> leaving,
              std::span<const std::uint64_t> anchor_code,
              std::span<std::uint32_t> out,
              scratch memory) const noexcept {
        const std::size_t blocks = num_tokens / block_size;
        const std::size_t words = simd::words_per_code<Code>(block_size);
        const std::span<Code> codes = memory.take<Code>(blocks * words);
        split(indicators, codes);
        const std::span<Code> center = memory.take<Code>(words);
        if (anchor_code.empty()) {
            anchor.make(std::span<const Code>(codes), block_size, center);
        } else {
            for (std::size_t w = 0; w < words; ++w) {
                center[w] = static_cast<Code>(anchor_code[w]);
            }
            if (const std::size_t used = block_size % (8 * sizeof(Code)); used != 0) {
                // Bits behind the last slot would make distances that no block can have.
                center[words - 1] =
                    static_cast<Code>(center[words - 1] & ((std::uint64_t{1} << used) - 1));
            }
        }
        const std::span<Distance> distances = memory.take<Distance>(blocks);
        simd::hamming_many(std::span<const Code>(center), std::span<const Code>(codes), distances);

        const std::span<Distance> candidates = memory.take<Distance>(leaving.size());
        for (std::size_t i = 0; i < leaving.size(); ++i) {
            KVCRUSH_ASSERT(leaving[i] < blocks);
            candidates[i] = distances[leaving[i]];
        }
        const std::span<std::uint64_t> taken =
            memory.take<std::uint64_t>(simd::bitmap_words(leaving.size()));
        std::fill(taken.begin(), taken.end(), std::uint64_t{0});
        const std::span<std::uint32_t> offsets = memory.take<std::uint32_t>(block_size + 1);
        const std::span<token_index> order = memory.take<token_index>(leaving.size());
        order_by_distance(std::span<const Distance>(candidates),
                          std::span<const std::uint64_t>(taken),
                          distance_sort::ascending,
                          offsets,
                          order);
        for (std::size_t i = 0; i < out.size(); ++i) {
            out[i] = leaving[order[step_picker{}.rank(i, leaving.size(), out.size())]];
        }
    }

    /// The bits of each block in a code of its own.
    template <typename Code>
    void split(std::span<const std::uint64_t> indicators, std::span<Code> codes) const noexcept {
        constexpr std::size_t digits = std::numeric_limits<Code>::digits;
        if (block_size % digits == 0 && std::endian::native == std::endian::little) {
            std::memcpy(codes.data(), indicators.data(), codes.size_bytes());
            return;
        }
        std::size_t begin = 0;
        std::size_t left = block_size;
        for (Code& code : codes) {
            const std::size_t count = (std::min)(left, digits);
            const std::size_t shift = begin % 64;
            std::uint64_t bits = indicators[begin / 64] >> shift;
            if (shift + count > 64) {
                bits |= indicators[begin / 64 + 1] << (64 - shift);
            }
            code = static_cast<Code>(bits & (~std::uint64_t{0} >> (64 - count)));
            begin += count;
            left = left == count ? block_size : left - count;
        }
    }
};
static_assert(Policy<block_refinement>);

} // namespace v0
} // namespace kvcrush
