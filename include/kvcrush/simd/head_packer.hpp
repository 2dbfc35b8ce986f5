// SPDX-License-Identifier: Apache-2.0
/// @file
/// Binary codes of tokens: one bit per head, set where the head's cut holds the token. They are built one head after
/// the other, while the scores of a head are in the cache.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/detail/bit_planes.hpp>
#include <kvcrush/simd/detail/rank_cut_search.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// Fills codes head by head.
///
///     bit h of codes[t] = cuts[h] contains scores[h, t]        bits without a head are 0
///
///     head_packer<std::uint32_t> packer(codes, num_heads);
///     for each head: packer.add(head, scores, cut);        any order, each exactly once
///     packer.finish();                                     only now do the codes hold these bits
/// Until then each 16 tokens' share of `codes` holds one 16-bit mask per head, which has the same size: the masks
/// are transposed in place, and no other memory is needed.
template <CodeWord Code>
class head_packer {
public:
    /// @param[out] codes  [tokens, words_per_code]
    /// @pre num_heads <= bits of Code, unless those are 64
    head_packer(std::span<Code> codes, std::size_t num_heads, isa at_most = best()) noexcept
        : codes_{codes},
          num_heads_{num_heads},
          words_{words_per_code<Code>(num_heads)},
          num_tokens_{words_ == 0 ? 0 : codes.size() / words_},
          num_masks_{num_tokens_ / detail::tokens_per_mask},
          rung_{usable(at_most)} {
        KVCRUSH_ASSERT(sizeof(Code) == 8 || num_heads <= code_bits);
        KVCRUSH_ASSERT(words_ == 0 ? codes.empty() : codes.size() % words_ == 0);
        // Tokens behind the last full mask are decided one by one.
        const auto rest = codes.subspan(num_masks_ * detail::tokens_per_mask * words_);
        std::fill(rest.begin(), rest.end(), Code{0});
    }

    /// Decides for one head.
    /// @param scores  one per token
    /// @param cut     as find_rank_cut gives it for these scores
    void add(std::size_t head, std::span<const float> scores, rank_cut cut) noexcept {
        KVCRUSH_ASSERT(head < num_heads_ && scores.size() == num_tokens_);
        using detail::tokens_per_mask;
        const std::size_t ties = (std::min)(cut.tie_end / tokens_per_mask, num_masks_);
        write_masks(scores, 0, ties, cut.key, head);
        std::size_t next = ties;
        if (next < num_masks_ && cut.tie_end % tokens_per_mask != 0) { // ties end in this mask
            std::uint16_t mask = 0;
            for (std::size_t t = 0; t < tokens_per_mask; ++t) {
                const std::size_t token = next * tokens_per_mask + t;
                mask = static_cast<std::uint16_t>(
                    mask | ((cut.contains(scores[token], token) ? 1U : 0U) << t));
            }
            std::memcpy(mask_at(head) + 2 * next * masks_per_block(), &mask, 2);
            ++next;
        }
        write_masks(scores, next, num_masks_, detail::bound_after_ties(cut), head);
        for (std::size_t t = num_masks_ * tokens_per_mask; t < num_tokens_; ++t) {
            Code& code = codes_[t * words_ + head / code_bits];
            const std::uint64_t bit = cut.contains(scores[t], t) ? 1 : 0;
            code = static_cast<Code>(code | (bit << (head % code_bits)));
        }
    }

    /// Turns the masks of all heads into codes.
    void finish() noexcept {
        if (num_heads_ == 0) {
            std::fill(codes_.begin(), codes_.end(), Code{0});
            return;
        }
        switch (rung_) {
#if KVCRUSH_X86_DISPATCH
        case isa::avx512: return transpose_all<detail::plane_kernels_avx512>();
        case isa::avx2: return transpose_all<detail::plane_kernels_avx2>();
#endif
        default: return transpose_all<detail::plane_kernels_scalar>();
        }
    }

private:
    static constexpr std::size_t code_bits = std::numeric_limits<Code>::digits;
    static constexpr std::size_t max_words = 64;

    [[nodiscard]] std::size_t masks_per_block() const noexcept { return words_ * code_bits; }
    [[nodiscard]] unsigned char* mask_at(std::size_t head) const noexcept {
        return reinterpret_cast<unsigned char*>(codes_.data()) + 2 * head;
    }

    void write_masks(std::span<const float> scores,
                     std::size_t begin,
                     std::size_t end,
                     std::uint32_t bound,
                     std::size_t head) noexcept {
        if (begin == end) {
            return;
        }
        const float* const first = scores.data() + begin * detail::tokens_per_mask;
        unsigned char* const masks = mask_at(head) + 2 * begin * masks_per_block();
        const std::size_t stride = masks_per_block();
        switch (rung_) {
#if KVCRUSH_X86_DISPATCH
        case isa::avx512:
            return detail::plane_kernels_avx512::write_masks(
                first, end - begin, bound, masks, stride);
        case isa::avx2:
            return detail::plane_kernels_avx2::write_masks(
                first, end - begin, bound, masks, stride);
#endif
        default:
            return detail::plane_kernels_scalar::write_masks(
                first, end - begin, bound, masks, stride);
        }
    }

    template <typename Kernels>
    void transpose_all() noexcept {
        using detail::heads_per_tile;
        using detail::tokens_per_mask;
        const std::size_t num_tiles = (num_heads_ + heads_per_tile - 1) / heads_per_tile;
        for (std::size_t block = 0; block < num_masks_; ++block) {
            Code* const out = codes_.data() + block * tokens_per_mask * words_;
            if constexpr (sizeof(Code) < 8) {
                detail::mask_tile masks{};
                std::memcpy(masks.data(), out, 2 * num_heads_);
                detail::code_tile codes;
                Kernels::transpose(masks, codes);
                for (std::size_t t = 0; t < tokens_per_mask; ++t) {
                    out[t] = static_cast<Code>(codes[t]);
                }
            } else if (words_ == 1) {
                transpose_words<Kernels, 1>(out, num_tiles);
            } else {
                transpose_words<Kernels, max_words>(out, num_tiles);
            }
        }
    }

    /// The masks of a block are moved away first: its codes take their place.
    template <typename Kernels, std::size_t MaxWords>
    void transpose_words(Code* out, std::size_t num_tiles) noexcept {
        using detail::heads_per_tile;
        using detail::tokens_per_mask;
        std::array<detail::mask_tile, 2 * MaxWords> masks;
        masks[num_tiles - 1] = {};
        std::memcpy(masks.data(), out, 2 * num_heads_);
        for (std::size_t word = 0; word < words_; ++word) {
            detail::code_tile low;
            detail::code_tile high{};
            Kernels::transpose(masks[2 * word], low);
            if (2 * word + 1 < num_tiles) {
                Kernels::transpose(masks[2 * word + 1], high);
            }
            for (std::size_t t = 0; t < tokens_per_mask; ++t) {
                out[t * words_ + word] =
                    static_cast<Code>(low[t] | (std::uint64_t{high[t]} << heads_per_tile));
            }
        }
    }

    std::span<Code> codes_;
    std::size_t num_heads_;
    std::size_t words_;
    std::size_t num_tokens_;
    std::size_t num_masks_;
    isa rung_;
};

} // namespace simd
} // namespace v0
} // namespace kvcrush
