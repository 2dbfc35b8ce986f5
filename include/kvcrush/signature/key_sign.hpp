// SPDX-License-Identifier: Apache-2.0
/// @file
/// Another portrait of a token: on which side of zero do the channels of its key lie?
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/channel_sums.hpp>
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/convert.hpp>
#include <kvcrush/simd/pack_signs.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// One bit per key channel and kv head: set where the channel is above zero. Keys that lie in the same direction get
/// the same bits, so distances follow the angle between keys (as in sign random projections).
///
///     strength[c] = |mean[c]| / std[c] over the middle tokens (unbiased std)
/// The channels of greatest strength describe what most keys have in common; the anchor is the sign of their means,
/// and the tokens farthest from it are those that differ.
/// @note On the reference model this helps where scores cannot know what will be asked: with the farthest tokens as
///       representatives SnapKV finds passkeys more often, at a small loss in text.
/// @see  KVCrush, arXiv:2503.00022, for what a signature is. Deviation: keys make the bits, not heads.
struct key_sign_signature {
    static constexpr std::string_view name = "key_sign";
    /// Most bits of a code.
    static constexpr std::size_t max_bits = 256;

    /// How many channels make bits, those of greatest strength; 0 takes all of them (the 256 best of longer keys).
    std::size_t channels = 32;

    static constexpr auto parameters() {
        return parameter_list{parameter{
            "channels", &key_sign_signature::channels, "key channels that make bits, 0 for all"}};
    }

    /// @throws std::invalid_argument if channels exceeds 256
    void validate() const {
        detail::require(channels <= max_bits,
                        "key_sign: channels is ",
                        channels,
                        "; it must lie in [0, ",
                        max_bits,
                        "]");
    }

    /// Bits of one code: `channels`, or fewer where keys are shorter.
    [[nodiscard]] std::size_t num_bits(const problem_size& size) const noexcept {
        return (std::min)(size.kv.key_dim, channels == 0 ? max_bits : channels);
    }

    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        const std::size_t dim = size.kv.key_dim;
        return 5 * scratch::bytes<double>(dim) + 3 * scratch::bytes<std::uint32_t>(dim) +
               scratch::bytes<float>(rows_per_batch * dim) + scratch::bytes<std::uint64_t>(dim);
    }

    /// @param[in]  kv      any cache; keys are read twice, once where all channels make bits
    /// @param[in]  head    the kv head
    /// @param[in]  area    codes are made for its middle tokens, from their keys alone
    /// @param[out] codes   [num_middle, words], token-major; bit i is the i-th of the chosen channels, ascending
    /// @param[out] anchor  [words]: bit set where the mean of the channel over the middle tokens is above 0
    /// @note  NaN gives bit 0. Means and deviations pass over NaN and infinities; a channel whose finite values are
    ///        all equal has infinite strength, or none if they are 0; of equal strengths the earlier channel wins.
    /// @pre   words = words_per_code<Code>(num_bits)
    template <KvSource Kv, simd::CodeWord Code>
    void build(const Kv& kv,
               std::size_t head,
               const areas& area,
               std::span<Code> codes,
               std::span<Code> anchor,
               scratch memory) const noexcept {
        const std::size_t dim = kv.shape().key_dim;
        const std::size_t bits = num_bits(problem_size{kv.shape(), 0});
        const std::size_t words = simd::words_per_code<Code>(bits);
        KVCRUSH_ASSERT(head < kv.shape().num_kv_heads && area.middle_end <= kv.shape().seq_len);
        KVCRUSH_ASSERT(sizeof(Code) == 8 || bits <= std::numeric_limits<Code>::digits);
        KVCRUSH_ASSERT(codes.size() == words * area.num_middle() && anchor.size() == words);
        const std::span<float> staged = memory.take<float>(rows_per_batch * dim);
        const std::span<std::uint64_t> chosen = memory.take<std::uint64_t>((dim + 63) / 64);
        std::fill(chosen.begin(), chosen.end(), std::uint64_t{0});

        const std::span<float> origin = memory.take<float>(dim);
        const simd::channel_sums sums{origin,
                                      memory.take<double>(dim),
                                      memory.take<double>(dim),
                                      memory.take<double>(dim),
                                      memory.take<std::uint32_t>(dim)};
        find_origin(kv, head, area, staged, origin);
        for (const std::span<double> zeros : {sums.sum, sums.first, sums.second}) {
            std::fill(zeros.begin(), zeros.end(), 0.0);
        }
        std::fill(sums.missing.begin(), sums.missing.end(), 0U);

        const bool all_channels = bits == dim; // then the choice need not wait for the sums
        if (all_channels) {
            for (std::size_t c = 0; c < dim; ++c) {
                choose(c, chosen);
            }
        }
        std::array<const float*, rows_per_batch> rows;
        for (std::size_t t = area.middle_begin; t < area.middle_end; t += rows_per_batch) {
            const std::size_t num = (std::min)(rows_per_batch, area.middle_end - t);
            read_rows(kv, head, t, num, staged, rows);
            simd::add_rows(std::span(rows).first(num), sums);
            if (all_channels) {
                pack(std::span(rows).first(num), dim, chosen, codes, t - area.middle_begin, words);
            }
        }
        if (!all_channels) {
            choose_strongest(sums, area.num_middle(), bits, chosen, memory);
            for (std::size_t t = area.middle_begin; t < area.middle_end; t += rows_per_batch) {
                const std::size_t num = (std::min)(rows_per_batch, area.middle_end - t);
                read_rows(kv, head, t, num, staged, rows);
                pack(std::span(rows).first(num), dim, chosen, codes, t - area.middle_begin, words);
            }
        }
        // Only the sign of a mean counts, and a sum has the same.
        for (std::size_t c = 0; c < dim; ++c) {
            staged[c] = sums.sum[c] > 0.0 ? 1.0F : 0.0F;
        }
        const std::array<const float*, 1> signs{staged.data()};
        simd::pack_signs<Code>(signs, dim, chosen, anchor);
    }

private:
    /// Enough for the kernels to share their work, and 16 KB of staged rows at 256 channels.
    static constexpr std::size_t rows_per_batch = 16;

    static void choose(std::size_t channel, std::span<std::uint64_t> chosen) noexcept {
        chosen[channel / 64] |= std::uint64_t{1} << (channel % 64);
    }

    /// Rows of contiguous floats are read where they lie, others are converted.
    template <KvSource Kv>
    static void read_rows(const Kv& kv,
                          std::size_t head,
                          std::size_t first,
                          std::size_t num,
                          std::span<float> staged,
                          std::array<const float*, rows_per_batch>& rows) noexcept {
        using element = std::remove_const_t<key_element_t<Kv>>;
        for (std::size_t r = 0; r < num; ++r) {
            const auto row = kv.key(head, first + r);
            const std::span<float> copy = staged.subspan(r * row.size(), row.size());
            rows[r] = copy.data();
            if (!row.contiguous()) {
                for (std::size_t c = 0; c < copy.size(); ++c) {
                    copy[c] = to_float(row[c]);
                }
            } else if constexpr (std::is_same_v<element, float>) {
                rows[r] = row.data();
            } else {
                simd::to_float(std::span<const element>(row.elements()), copy);
            }
        }
    }

    /// The first finite value of each channel; 0 where there is none.
    template <KvSource Kv>
    static void find_origin(const Kv& kv,
                            std::size_t head,
                            const areas& area,
                            std::span<float> staged,
                            std::span<float> origin) noexcept {
        constexpr float unknown = std::numeric_limits<float>::infinity();
        std::fill(origin.begin(), origin.end(), unknown);
        std::array<const float*, rows_per_batch> row;
        std::size_t left = origin.size();
        for (std::size_t t = area.middle_begin; t < area.middle_end && left > 0; ++t) {
            read_rows(kv, head, t, 1, staged, row);
            for (std::size_t c = 0; c < origin.size(); ++c) {
                if (origin[c] == unknown && std::isfinite(row[0][c])) {
                    origin[c] = row[0][c];
                    --left;
                }
            }
        }
        std::replace(origin.begin(), origin.end(), unknown, 0.0F);
    }

    template <simd::CodeWord Code>
    static void pack(std::span<const float* const> rows,
                     std::size_t dim,
                     std::span<const std::uint64_t> chosen,
                     std::span<Code> codes,
                     std::size_t first,
                     std::size_t words) noexcept {
        simd::pack_signs(rows, dim, chosen, codes.subspan(first * words, rows.size() * words));
    }

    /// Marks the `count` channels of greatest |mean| / std.
    static void choose_strongest(const simd::channel_sums& sums,
                                 std::size_t num_tokens,
                                 std::size_t count,
                                 std::span<std::uint64_t> chosen,
                                 scratch memory) noexcept {
        const std::span<double> strength = memory.take<double>(sums.sum.size());
        const std::span<std::uint32_t> order = memory.take<std::uint32_t>(sums.sum.size());
        for (std::size_t c = 0; c < strength.size(); ++c) {
            order[c] = static_cast<std::uint32_t>(c);
            strength[c] = strength_of(sums, c, num_tokens);
        }
        std::nth_element(order.begin(),
                         order.begin() + static_cast<std::ptrdiff_t>(count),
                         order.end(),
                         [strength](std::uint32_t a, std::uint32_t b) {
                             return strength[a] != strength[b] ? strength[a] > strength[b] : a < b;
                         });
        for (const std::uint32_t c : order.first(count)) {
            choose(c, chosen);
        }
    }

    [[nodiscard]] static double
    strength_of(const simd::channel_sums& sums, std::size_t c, std::size_t num_tokens) noexcept {
        const auto count = static_cast<double>(num_tokens - sums.missing[c]);
        if (sums.second[c] == 0.0) { // all values are equal
            return sums.sum[c] == 0.0 ? 0.0 : std::numeric_limits<double>::infinity();
        }
        const double mean = sums.sum[c] / count;
        const double variance =
            (sums.second[c] - sums.first[c] * (sums.first[c] / count)) / (count - 1.0);
        const double strength = std::abs(mean) / std::sqrt(variance);
        return strength >= 0.0 ? strength : 0.0; // differences beyond the range of float give NaN
    }
};

} // namespace v0
} // namespace kvcrush
