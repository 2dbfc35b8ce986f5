// SPDX-License-Identifier: Apache-2.0
/// @file
/// What attention remembers: keys and values per layer and kv head, in memory that can be given back.
#pragma once

#include <kvcrush/cache/sequence.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#include "codec_choice.hpp"
#include "error.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace lab {

enum class cache_type : std::uint8_t { f16, f32 };

/// The rows of one layer. Each kv head owns its memory and may hold another number of rows than its neighbours,
/// because policies keep different tokens per head.
template <kvcrush::Element T>
class layer_cache {
public:
    layer_cache(std::size_t num_kv_heads, std::size_t head_dim)
        : head_dim_(head_dim), heads_(num_kv_heads) {}

    [[nodiscard]] std::size_t num_kv_heads() const noexcept { return heads_.size(); }
    [[nodiscard]] std::size_t head_dim() const noexcept { return head_dim_; }
    [[nodiscard]] std::size_t rows(std::size_t head) const noexcept {
        return heads_[head].positions.size();
    }

    /// [rows, head_dim], keys after RoPE in half-split order. Writable, so that a policy can move rows in place.
    [[nodiscard]] std::span<T> keys(std::size_t head) noexcept { return heads_[head].keys; }
    [[nodiscard]] std::span<const T> keys(std::size_t head) const noexcept {
        return heads_[head].keys;
    }
    [[nodiscard]] std::span<T> values(std::size_t head) noexcept { return heads_[head].values; }
    [[nodiscard]] std::span<const T> values(std::size_t head) const noexcept {
        return heads_[head].values;
    }

    /// The position of each row's token in the text, [rows]. Moves with the rows.
    [[nodiscard]] std::span<std::uint32_t> positions(std::size_t head) noexcept {
        return heads_[head].positions;
    }
    [[nodiscard]] std::span<const std::uint32_t> positions(std::size_t head) const noexcept {
        return heads_[head].positions;
    }

    /// Rows that attention skips: nonzero hides the row of that index, and rows beyond the mask are visible.
    /// Empty by default. A masked cache is what a compacted one has to agree with.
    [[nodiscard]] std::vector<std::uint8_t>& hidden(std::size_t head) noexcept {
        return heads_[head].hidden;
    }
    [[nodiscard]] const std::vector<std::uint8_t>& hidden(std::size_t head) const noexcept {
        return heads_[head].hidden;
    }

    /// Adds one row at the end, converted to T.
    void append(std::size_t head,
                std::span<const float> key,
                std::span<const float> value,
                std::uint32_t position) {
        KVCRUSH_ASSERT(key.size() == head_dim_ && value.size() == head_dim_);
        head_rows& to = heads_[head];
        make_room(to.keys, head_dim_);
        make_room(to.values, head_dim_);
        make_room(to.positions, 1);
        for (std::size_t i = 0; i < head_dim_; ++i) {
            to.keys.push_back(kvcrush::from_float<T>(key[i]));
            to.values.push_back(kvcrush::from_float<T>(value[i]));
        }
        to.positions.push_back(position);
    }

    /// Makes room for so many rows in all, so that appending them allocates nothing.
    void reserve(std::size_t head, std::size_t rows) {
        heads_[head].keys.reserve(rows * head_dim_);
        heads_[head].values.reserve(rows * head_dim_);
        heads_[head].positions.reserve(rows);
    }

    /// Drops all rows but the first `count` and gives their memory back: the rest moves to storage of its size.
    void keep_first(std::size_t head, std::size_t count) {
        if (count > rows(head)) {
            fail("kv head ",
                 head,
                 " has ",
                 rows(head),
                 " rows; the first ",
                 count,
                 " cannot be kept");
        }
        head_rows& from = heads_[head];
        shrink(from.keys, count * head_dim_);
        shrink(from.values, count * head_dim_);
        shrink(from.positions, count);
        shrink(from.hidden, (std::min)(count, from.hidden.size()));
    }

    /// What is allocated for keys and values, used or not [bytes].
    [[nodiscard]] std::size_t bytes_held() const noexcept {
        std::size_t elements = 0;
        for (const head_rows& head : heads_) {
            elements += head.keys.capacity() + head.values.capacity();
        }
        return elements * sizeof(T);
    }

    /// What is allocated for positions [bytes].
    [[nodiscard]] std::size_t position_bytes_held() const noexcept {
        std::size_t elements = 0;
        for (const head_rows& head : heads_) {
            elements += head.positions.capacity();
        }
        return elements * sizeof(std::uint32_t);
    }

private:
    struct head_rows {
        std::vector<T> keys;
        std::vector<T> values;
        std::vector<std::uint32_t> positions;
        std::vector<std::uint8_t> hidden;
    };

    /// Grows by an eighth: a small cache whose memory doubles with its next row would be small no more.
    template <typename U>
    static void make_room(std::vector<U>& values, std::size_t count) {
        if (values.capacity() - values.size() < count) {
            values.reserve(values.size() + values.size() / 8 + 16 * count);
        }
    }

    /// shrink_to_fit is only a request; a copy of the beginning has exactly its size.
    template <typename U>
    static void shrink(std::vector<U>& values, std::size_t count) {
        values =
            std::vector<U>(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count));
    }

    std::size_t head_dim_;
    std::vector<head_rows> heads_;
};

/// One layer_cache per layer, all of one element type, and how far the text has been read. Copyable.
///
/// encode() turns it into a coded cache: a kvcrush::kv_sequence per layer instead, no dense layer_cache any more.
class kv_cache {
public:
    template <kvcrush::Element T>
    using layers_of = std::vector<layer_cache<T>>;

    kv_cache(cache_type type,
             std::size_t num_layers,
             std::size_t num_kv_heads,
             std::size_t head_dim) {
        if (type == cache_type::f16) {
            layers_ = layers_of<kvcrush::f16>(num_layers, {num_kv_heads, head_dim});
        } else {
            layers_ = layers_of<float>(num_layers, {num_kv_heads, head_dim});
        }
    }

    [[nodiscard]] cache_type type() const noexcept {
        return std::holds_alternative<layers_of<kvcrush::f16>>(layers_) ? cache_type::f16
                                                                        : cache_type::f32;
    }

    /// Calls `what` with the vector of dense layers, whichever type they are of: empty ones for a coded cache.
    template <typename F>
    decltype(auto) visit(F&& what) {
        return std::visit(std::forward<F>(what), layers_);
    }
    template <typename F>
    decltype(auto) visit(F&& what) const {
        return std::visit(std::forward<F>(what), layers_);
    }

    [[nodiscard]] bool is_coded() const noexcept { return !coded_.empty(); }
    /// The layers of a coded cache.
    [[nodiscard]] std::vector<kvcrush::kv_sequence>& coded() noexcept { return coded_; }
    [[nodiscard]] const std::vector<kvcrush::kv_sequence>& coded() const noexcept { return coded_; }

    /// Stores all rows as chosen; rows to come stay dense until they leave the window.
    /// @param tiers  per layer and kv head, the tier of each row; empty: all go to the first
    /// @throws input_error if a row cannot be stored, or if the cache is coded already
    void encode(const codec_choice& how,
                const std::vector<std::vector<std::vector<std::uint8_t>>>& tiers = {});

    /// A coded cache as rows of floats again, for policies that look at them. Positions come along.
    [[nodiscard]] kv_cache decoded() const;

    [[nodiscard]] std::size_t num_layers() const {
        return is_coded() ? coded_.size() : visit([](const auto& layers) { return layers.size(); });
    }
    [[nodiscard]] std::size_t rows(std::size_t layer, std::size_t head) const {
        return is_coded() ? coded_[layer].rows(head)
                          : visit([&](const auto& layers) { return layers[layer].rows(head); });
    }

    /// @throws std::bad_variant_access if the cache is of the other type
    template <kvcrush::Element T>
    [[nodiscard]] layers_of<T>& layers() {
        return std::get<layers_of<T>>(layers_);
    }
    template <kvcrush::Element T>
    [[nodiscard]] const layers_of<T>& layers() const {
        return std::get<layers_of<T>>(layers_);
    }

    /// The position of the next token. Never the number of rows: those that were evicted count too.
    [[nodiscard]] std::size_t tokens_seen() const noexcept { return tokens_seen_; }
    void advance(std::size_t tokens) noexcept { tokens_seen_ += tokens; }

    /// Time that forward passes spent on looking at this cache [ms].
    [[nodiscard]] double attention_ms() const noexcept { return attention_ms_; }
    void add_attention_ms(double milliseconds) noexcept { attention_ms_ += milliseconds; }

    [[nodiscard]] std::size_t bytes_held() const {
        if (is_coded()) {
            std::size_t bytes = 0;
            for (const kvcrush::kv_sequence& layer : coded_) {
                bytes += layer.bytes_held();
            }
            return bytes;
        }
        return visit([](const auto& layers) {
            std::size_t bytes = 0;
            for (const auto& layer : layers) {
                bytes += layer.bytes_held();
            }
            return bytes;
        });
    }

    /// What is allocated for positions beside those bytes; none for a coded cache, which counts them with its rows.
    [[nodiscard]] std::size_t position_bytes_held() const {
        return visit([](const auto& layers) {
            std::size_t bytes = 0;
            for (const auto& layer : layers) {
                bytes += layer.position_bytes_held();
            }
            return bytes;
        });
    }

private:
    std::variant<layers_of<float>, layers_of<kvcrush::f16>> layers_;
    std::vector<kvcrush::kv_sequence> coded_;
    std::size_t tokens_seen_ = 0;
    double attention_ms_ = 0.0;
};

} // namespace lab
