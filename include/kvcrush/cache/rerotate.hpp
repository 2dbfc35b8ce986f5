// SPDX-License-Identifier: Apache-2.0
/// @file
/// Moves kept keys to new positions: rotary position embedding (RoPE) turns pairs of channels by an angle proportional
/// to the position, so that a cached key gets from one position to another by the angle between them.
///
/// Positions and the next token, one rule per way of using a cache:
///
///     keys keep their positions         next = tokens seen                    next_position(key_positions::original, ...)
///     keys are rotated together here    next = stored rows of the longest     next_position(key_positions::consecutive, ...)
///
/// Anything else leaves wrong distances between old keys and new queries. Heads that keep fewer rows than the longest
/// end at the same place and begin later, so that one position serves the queries of all heads:
///
///     new position of row i of a head = next_position - rows of the head + i
///
/// Worth it where generation would leave the trained context, otherwise it may cost quality. V never changes.
/// Every pass rounds the keys to their element type again (relative 2^-12 for f16, 2^-9 for bf16): evict often, rotate
/// rarely. Frequencies must be those that the keys were rotated with: where they depend on the length of the text
/// (dynamic NTK, LongRoPE) and have changed since, no rotation by a difference is right. Sections with positions of
/// their own (M-RoPE) are not supported, nor are quantised keys: dequantise, rotate, quantise.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/rope.hpp>
#include <kvcrush/core/row_view.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/convert.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Turns rows by differences of positions.
///
///     x' = x cos(a) - y sin(a)        a = (to - from) * frequency of pair j
///     y' = y cos(a) + x sin(a)        (x, y): pair j of the channels that turn
///
/// One object serves all layers, heads and threads of a model. The (cos, sin) of a row are those of the row before,
/// turned by the difference of their shifts with a table of powers of two of a token, in double; rows between two gaps
/// have the same shift and share them.
/// @note Error: each cos and sin is off by at most 2^-37 (256 rows of 33 products of relative error 2^-51, then it
///       begins anew) and rounded to fp32; pairs are turned in fp32. So |x' - exact| <= 3.1 * 2^-24 * (|x| + |y|), and
///       one rounding to the element type follows. A pair that is longer than the type's largest number may become
///       infinite.
class rope_rotation {
public:
    /// @param of  the model's; its frequencies are copied
    /// @throws std::invalid_argument from rope::validate_for(); std::bad_alloc
    rope_rotation(const rope& of, std::size_t key_dim) : pairs_(of.pairing) {
        of.validate_for(key_dim);
        num_pairs_ = of.num_pairs(key_dim);
        std::vector<double> frequencies(num_pairs_);
        of.write_frequencies(frequencies);
        table_.resize(2 * bits * padded());
        double tokens = 1.0;
        for (std::size_t bit = 0; bit < bits; ++bit, tokens *= 2.0) {
            double* const cosine = table_.data() + 2 * bit * padded();
            double* const sine = cosine + padded();
            for (std::size_t j = 0; j < num_pairs_; ++j) {
                cosine[j] = std::cos(tokens * frequencies[j]);
                sine[j] = std::sin(tokens * frequencies[j]);
            }
        }
    }

    [[nodiscard]] rope_pairs pairs() const noexcept { return pairs_; }
    /// Channels that turn.
    [[nodiscard]] std::size_t rotary_dim() const noexcept { return 2 * num_pairs_; }
    /// Memory that turning keys needs [bytes].
    [[nodiscard]] std::size_t scratch_bytes() const noexcept {
        return 2 * scratch::bytes<double>(padded()) + 2 * scratch::bytes<float>(padded()) +
               scratch::bytes<float>(rotary_dim());
    }

    /// Turns the first keys of one head, row i from position from[i] to position to[i]. Rows that do not move are not
    /// touched.
    /// @pre  from.size() == to.size() <= seq_len; rotary_dim() <= key_dim
    /// @note O(rows * rotary_dim()), allocates nothing
    template <MutableKvSource Kv>
    void turn(const Kv& kv,
              std::size_t head,
              std::span<const token_index> from,
              std::span<const token_index> to,
              scratch memory) const noexcept {
        KVCRUSH_ASSERT(from.size() == to.size());
        turn(
            kv,
            head,
            from.size(),
            [from, to](std::size_t i) { return std::int64_t{to[i]} - std::int64_t{from[i]}; },
            memory);
    }

    /// The same for rows [0, count) whose shift (to - from) is shift(i), between -(2^32 - 1) and 2^32 - 1 [tokens].
    template <MutableKvSource Kv, typename Shift>
        requires std::is_invocable_r_v<std::int64_t, const Shift&, std::size_t>
    void turn(const Kv& kv, std::size_t head, std::size_t count, const Shift& shift, scratch memory)
        const noexcept {
        KVCRUSH_ASSERT(count <= kv.shape().seq_len && rotary_dim() <= kv.shape().key_dim);
        const angles now{memory.take<double>(padded()),
                         memory.take<double>(padded()),
                         memory.take<float>(padded()),
                         memory.take<float>(padded())};
        const std::span<float> staging = memory.take<float>(rotary_dim());
        std::int64_t reached = 0;
        for (std::size_t i = 0; i < count; ++i) {
            if (i % rows_per_start == 0) {
                std::fill(now.cosine.begin(), now.cosine.end(), 1.0);
                std::fill(now.sine.begin(), now.sine.end(), 0.0);
                reached = 0;
            }
            const std::int64_t wanted = shift(i);
            advance(now, wanted - reached);
            reached = wanted;
            if (wanted != 0) {
                turn_row(kv.key(head, i), now, staging);
            }
        }
    }

private:
    /// Neighbouring shifts differ by at most 2 (2^32 - 1).
    static constexpr std::size_t bits = 33;
    /// Rows until the angles are taken from the table alone again.
    static constexpr std::size_t rows_per_start = 256;
    /// Pairs of fixed number in arrays of their own become vectors at -O2.
    static constexpr std::size_t piece = 16;

    /// Pairs, and those that fill the last piece up: they never reach a key.
    [[nodiscard]] std::size_t padded() const noexcept {
        return (num_pairs_ + piece - 1) / piece * piece;
    }

    /// The rotation of the row at hand, [padded] each: in double, and as it is applied.
    struct angles {
        std::span<double> cosine;
        std::span<double> sine;
        std::span<float> rounded_cosine;
        std::span<float> rounded_sine;
    };

    /// Turns the rotation itself on by a number of tokens.
    void advance(const angles& now, std::int64_t tokens) const noexcept {
        if (tokens == 0) {
            return;
        }
        const double sign = tokens < 0 ? -1.0 : 1.0;
        auto left = static_cast<std::uint64_t>(tokens < 0 ? -tokens : tokens);
        for (std::size_t bit = 0; left != 0; ++bit, left >>= 1U) {
            if ((left & 1U) != 0) {
                const double* const step = table_.data() + 2 * bit * padded();
                for (std::size_t j = 0; j < padded(); j += piece) {
                    advance_piece(now, j, step + j, step + padded() + j, sign);
                }
            }
        }
        for (std::size_t j = 0; j < padded(); j += piece) {
            round_piece(now.cosine.data() + j, now.rounded_cosine.data() + j);
            round_piece(now.sine.data() + j, now.rounded_sine.data() + j);
        }
    }

    static void advance_piece(const angles& now,
                              std::size_t begin,
                              const double* step_cosine,
                              const double* step_sine,
                              double sign) noexcept {
        std::array<double, piece> cosine;
        std::array<double, piece> sine;
        for (std::size_t i = 0; i < piece; ++i) {
            const double c = now.cosine[begin + i];
            const double s = now.sine[begin + i];
            const double turned_sine = sign * step_sine[i];
            cosine[i] = c * step_cosine[i] - s * turned_sine;
            sine[i] = s * step_cosine[i] + c * turned_sine;
        }
        std::copy_n(cosine.data(), piece, now.cosine.data() + begin);
        std::copy_n(sine.data(), piece, now.sine.data() + begin);
    }

    static void round_piece(const double* exact, float* rounded) noexcept {
        std::array<float, piece> out;
        for (std::size_t i = 0; i < piece; ++i) {
            out[i] = static_cast<float>(exact[i]);
        }
        std::copy_n(out.data(), piece, rounded);
    }

    template <Element T>
    void
    turn_row(const row_view<T>& key, const angles& now, std::span<float> staging) const noexcept {
        if (!key.contiguous()) {
            for (std::size_t k = 0; k < staging.size(); ++k) {
                staging[k] = to_float(key[k]);
            }
            turn_channels(staging.data(), now);
            for (std::size_t k = 0; k < staging.size(); ++k) {
                key[k] = from_float<T>(staging[k]);
            }
        } else if constexpr (std::is_same_v<T, float>) {
            turn_channels(key.data(), now);
        } else {
            const std::span<T> channels = key.elements().first(staging.size());
            simd::to_float(std::span<const T>(channels), staging);
            turn_channels(staging.data(), now);
            simd::from_float(std::span<const float>(staging), channels);
        }
    }

    void turn_channels(float* channels, const angles& now) const noexcept {
        const bool split = pairs_ == rope_pairs::half_split;
        std::size_t j = 0;
        for (; j + piece <= num_pairs_; j += piece) {
            if (split) {
                turn_split_piece(channels + j, channels + num_pairs_ + j, now, j);
            } else {
                turn_interleaved_piece(channels + 2 * j, now, j);
            }
        }
        const std::size_t stride = split ? 1 : 2;
        const std::size_t partner = split ? num_pairs_ : 1;
        for (; j < num_pairs_; ++j) {
            float& first = channels[j * stride];
            float& second = channels[j * stride + partner];
            const float x = first;
            const float y = second;
            first = x * now.rounded_cosine[j] - y * now.rounded_sine[j];
            second = y * now.rounded_cosine[j] + x * now.rounded_sine[j];
        }
    }

    using channels_of_piece = std::array<float, piece>;

    static void turn_piece(channels_of_piece& xs,
                           channels_of_piece& ys,
                           const angles& now,
                           std::size_t begin) noexcept {
        channels_of_piece cosine;
        channels_of_piece sine;
        std::copy_n(now.rounded_cosine.data() + begin, piece, cosine.data());
        std::copy_n(now.rounded_sine.data() + begin, piece, sine.data());
        for (std::size_t i = 0; i < piece; ++i) {
            const float x = xs[i];
            const float y = ys[i];
            xs[i] = x * cosine[i] - y * sine[i];
            ys[i] = y * cosine[i] + x * sine[i];
        }
    }

    static void
    turn_split_piece(float* x, float* y, const angles& now, std::size_t begin) noexcept {
        channels_of_piece xs;
        channels_of_piece ys;
        std::copy_n(x, piece, xs.data());
        std::copy_n(y, piece, ys.data());
        turn_piece(xs, ys, now, begin);
        std::copy_n(xs.data(), piece, x);
        std::copy_n(ys.data(), piece, y);
    }

    static void
    turn_interleaved_piece(float* pairs, const angles& now, std::size_t begin) noexcept {
        channels_of_piece xs;
        channels_of_piece ys;
        for (std::size_t i = 0; i < piece; ++i) {
            xs[i] = pairs[2 * i];
            ys[i] = pairs[2 * i + 1];
        }
        turn_piece(xs, ys, now, begin);
        for (std::size_t i = 0; i < piece; ++i) {
            pairs[2 * i] = xs[i];
            pairs[2 * i + 1] = ys[i];
        }
    }

    rope_pairs pairs_;
    std::size_t num_pairs_ = 0;
    /// [bits, {cos, sin}, padded] of 2^bit tokens.
    std::vector<double> table_;
};

/// Where the keys that stay are, as attention sees them.
enum class key_positions {
    /// At the positions they were rotated for.
    original,
    /// Together, up to the last position before the next token.
    consecutive
};

/// The position of the next token, for its query and its key.
/// @param tokens_seen  tokens that the model has read, kept or not
[[nodiscard]] inline std::size_t
next_position(key_positions where, std::size_t tokens_seen, const selection& kept) noexcept {
    return where == key_positions::original ? tokens_seen : kept.longest();
}

/// Rotates the keys of a compacted cache to consecutive positions, where row t of every head was at position t before:
/// the first compression of a fresh prompt, or a later one where all heads always kept equally many rows.
///
///     compact(kv, kept);
///     const std::size_t next = next_position(key_positions::consecutive, seq_len, kept);
///     rerotate(kv, kept, next, rotation, memory);
/// @param kv    compacted to `kept`, still with its old length or shorter
/// @param next  position of the next token; at least what the longest head keeps. Layers that keep different numbers of
///              rows take the largest of theirs
/// @pre   rotation.rotary_dim() <= key_dim, memory of rotation.scratch_bytes()
/// @note  O(kept rows * rotary_dim), allocates nothing
template <MutableKvSource Kv>
void rerotate(const Kv& kv,
              const selection& kept,
              std::size_t next,
              const rope_rotation& rotation,
              scratch memory) noexcept {
    KVCRUSH_ASSERT(kept.num_kv_heads() == 0 || kept.num_kv_heads() == kv.shape().num_kv_heads);
    KVCRUSH_ASSERT(next >= kept.longest());
    for (std::size_t head = 0; head < kept.num_kv_heads(); ++head) {
        const std::span<const token_index> tokens = kept.kept(head);
        const auto first = static_cast<std::int64_t>(next - tokens.size());
        rotation.turn(
            kv,
            head,
            tokens.size(),
            [tokens, first](std::size_t i) {
                return first + static_cast<std::int64_t>(i) - std::int64_t{tokens[i]};
            },
            memory);
    }
}

/// The same for one head whose rows are anywhere: the caller keeps their positions.
/// @param[in,out] positions  of rows [0, positions.size()), which are turned: before, what they are rotated for; after,
///                           next - positions.size() + i. Compact them like the rows
/// @pre   next >= positions.size()
template <MutableKvSource Kv>
void rerotate(const Kv& kv,
              std::size_t head,
              std::span<token_index> positions,
              std::size_t next,
              const rope_rotation& rotation,
              scratch memory) noexcept {
    KVCRUSH_ASSERT(next >= positions.size());
    const std::size_t first = next - positions.size();
    rotation.turn(
        kv,
        head,
        positions.size(),
        [positions, first](std::size_t i) {
            return static_cast<std::int64_t>(first + i) - std::int64_t{positions[i]};
        },
        memory);
    for (std::size_t i = 0; i < positions.size(); ++i) {
        positions[i] = static_cast<token_index>(first + i);
    }
}

} // namespace v0
} // namespace kvcrush
