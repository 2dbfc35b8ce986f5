// SPDX-License-Identifier: Apache-2.0
/// @file
/// One type for every cache: rows are read as floats, a tile at a time, whatever they are stored as. Policies that are
/// chosen when a program runs look at caches through it, so that they are compiled once, not once per layout.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/row_view.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/math/row_batches.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// What can hand out rows of a layer as floats, for caches whose rows have no address, such as encoded ones.
///
///     read_keys(head, first, count, out)     keys of the tokens [first, first + count), [count, key_dim]
///     read_values(head, first, count, out)   likewise, [count, value_dim]
template <typename R>
concept RowReader =
    requires(const R& reader, std::size_t head, std::size_t first, std::size_t count, float* out) {
        { reader.shape() } noexcept -> std::convertible_to<kv_shape>;
        { reader.read_keys(head, first, count, out) } noexcept;
        { reader.read_values(head, first, count, out) } noexcept;
    };

/// A KvSource over any other, or over a RowReader. Two tiles of keys and two of values per head are held at a time: a row
/// stays where it is until a row of the same head, two tiles or more away, is asked for, which is more than the library's
/// loops over rows need. Reading rows one after the other decodes each once.
///
/// Threads may share one as long as each looks at heads of its own. Copies refer to the same tiles.
class any_source {
public:
    /// Tokens of a tile.
    static constexpr std::size_t tile = 64;

    /// What the constructor takes of its memory [bytes].
    [[nodiscard]] static constexpr std::size_t scratch_bytes(const kv_shape& shape) noexcept {
        const std::size_t slots = shape.num_kv_heads * slots_per_head;
        return 2 * scratch::bytes<std::size_t>(slots) +
               scratch::bytes<float>(slots * tile * shape.key_dim) +
               scratch::bytes<float>(slots * tile * shape.value_dim);
    }

    /// @param source  must outlive this
    /// @param memory  scratch_bytes(source.shape())
    template <typename Source>
        requires(!std::same_as<Source, any_source> && (KvSource<Source> || RowReader<Source>))
    any_source(const Source& source, scratch& memory) noexcept
        : shape_(source.shape()),
          source_(&source),
          read_keys_(read<Source, true>),
          read_values_(read<Source, false>) {
        const std::size_t slots = shape_.num_kv_heads * slots_per_head;
        key_tiles_ = memory.take<std::size_t>(slots);
        value_tiles_ = memory.take<std::size_t>(slots);
        std::fill(key_tiles_.begin(), key_tiles_.end(), no_tile);
        std::fill(value_tiles_.begin(), value_tiles_.end(), no_tile);
        keys_ = memory.take<float>(slots * tile * shape_.key_dim);
        values_ = memory.take<float>(slots * tile * shape_.value_dim);
    }

    [[nodiscard]] kv_shape shape() const noexcept { return shape_; }
    [[nodiscard]] row_view<const float> key(std::size_t head, std::size_t token) const noexcept {
        return row(head, token, shape_.key_dim, key_tiles_, keys_, read_keys_);
    }
    [[nodiscard]] row_view<const float> value(std::size_t head, std::size_t token) const noexcept {
        return row(head, token, shape_.value_dim, value_tiles_, values_, read_values_);
    }

private:
    using reader = void (*)(const void* source,
                            std::size_t head,
                            std::size_t first,
                            std::size_t count,
                            float* out) noexcept;
    static constexpr std::size_t slots_per_head = 2;
    static constexpr std::size_t no_tile = (std::numeric_limits<std::size_t>::max)();

    [[nodiscard]] row_view<const float> row(std::size_t head,
                                            std::size_t token,
                                            std::size_t dim,
                                            std::span<std::size_t> held,
                                            std::span<float> rows,
                                            reader read_rows) const noexcept {
        KVCRUSH_ASSERT(head < shape_.num_kv_heads && token < shape_.seq_len);
        const std::size_t wanted = token / tile;
        const std::size_t slot = head * slots_per_head + wanted % slots_per_head;
        float* const first = rows.data() + slot * tile * dim;
        if (held[slot] != wanted) {
            const std::size_t begin = wanted * tile;
            read_rows(source_, head, begin, (std::min)(tile, shape_.seq_len - begin), first);
            held[slot] = wanted;
        }
        return {first + token % tile * dim, dim};
    }

    template <typename Source, bool Keys>
    static void read(const void* source,
                     std::size_t head,
                     std::size_t first,
                     std::size_t count,
                     float* out) noexcept {
        const auto& from = *static_cast<const Source*>(source);
        if constexpr (RowReader<Source>) {
            Keys ? from.read_keys(head, first, count, out)
                 : from.read_values(head, first, count, out);
        } else {
            for (std::size_t t = first; t < first + count; ++t) {
                const auto row = [&] {
                    if constexpr (Keys) {
                        return from.key(head, t);
                    } else {
                        return from.value(head, t);
                    }
                }();
                detail::copy_row(row, out);
                out += row.size();
            }
        }
    }

    kv_shape shape_;
    const void* source_;
    reader read_keys_;
    reader read_values_;
    std::span<std::size_t> key_tiles_{};   ///< [heads, slots_per_head], which tile lies there
    std::span<std::size_t> value_tiles_{}; ///< likewise
    std::span<float> keys_{};              ///< [heads, slots_per_head, tile, key_dim]
    std::span<float> values_{};
};
static_assert(KvSource<any_source>);

} // namespace v0
} // namespace kvcrush
