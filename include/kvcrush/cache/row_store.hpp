// SPDX-License-Identifier: Apache-2.0
/// @file
/// Keys, values and positions of rows of one kv head that are stored alike.
#pragma once

#include <kvcrush/attend/any_codec.hpp>
#include <kvcrush/attend/attend.hpp>
#include <kvcrush/attend/code_tiles.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/cache/coded_rows.hpp>
#include <kvcrush/cache/position_set.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/recipe/row_storage.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Rows in ascending order of their positions.
class row_store {
public:
    /// Rows that attention reads in integers lie in tiles if both codecs allow it.
    /// @throws std::invalid_argument if a codec cannot hold such rows
    row_store(const codec_pair& codecs,
              std::size_t key_dim,
              std::size_t value_dim,
              arithmetic how = arithmetic::exact)
        : row_store(codecs,
                    key_dim,
                    value_dim,
                    how,
                    codecs.keys.tile(tile_role::keys, key_dim),
                    codecs.values.tile(tile_role::values, value_dim)) {}

    [[nodiscard]] std::size_t size() const noexcept { return positions_.size(); }
    [[nodiscard]] const position_set& positions() const noexcept { return positions_; }
    [[nodiscard]] const coded_rows& keys() const noexcept { return keys_; }
    [[nodiscard]] const coded_rows& values() const noexcept { return values_; }

    /// Whether a row of that position can be pushed: groups of rows grow at their end only.
    [[nodiscard]] bool takes(token_index position) const noexcept {
        return group_size() == 1 || position >= positions_.end();
    }
    [[nodiscard]] std::size_t group_size() const noexcept {
        return std::lcm(keys_.codec().group_size(), values_.codec().group_size());
    }

    /// Encodes rows and puts them where their positions belong. Rows that are there already move at most.
    /// @param keys       [count, key_dim], less the mean where the codec centres keys
    /// @param values     [count, value_dim]
    /// @param positions  [count], ascending, none of them held; takes() each
    /// @return false, with nothing changed, if a codec cannot hold one of them
    [[nodiscard]] bool push(std::span<const float> keys,
                            std::span<const float> values,
                            std::span<const token_index> positions) {
        if (positions.empty()) {
            return true;
        }
        if (!keys_.push(keys)) {
            return false;
        }
        if (!values_.push(values)) {
            keys_.pop(positions.size());
            return false;
        }
        if (positions.front() >= positions_.end()) {
            for (const token_index position : positions) {
                positions_.push(position);
            }
        } else {
            sort_in(positions);
        }
        return true;
    }

    /// Takes back the last `count` rows: what the last push() added, or a part of it.
    void pop(std::size_t count) noexcept {
        keys_.pop(count);
        values_.pop(count);
        positions_.pop(count);
    }

    /// Drops all rows but these. Their memory stays allocated until shrink_to_fit().
    void keep(std::span<const token_index> kept) {
        keys_.keep(kept);
        values_.keep(kept);
        positions_.keep(kept);
    }

    /// Drops the rows of these positions, all of which are held.
    /// @param positions  ascending
    void drop(std::span<const token_index> positions) {
        const std::vector<token_index> all = positions_.values();
        std::vector<token_index> rest;
        rest.reserve(all.size() - positions.size());
        for (std::size_t i = 0; i < all.size(); ++i) {
            if (!std::binary_search(positions.begin(), positions.end(), all[i])) {
                rest.push_back(static_cast<token_index>(i));
            }
        }
        keep(rest);
    }

    /// What attention reads rows with: those in whole tiles, and the others.
    struct kernels_of_rows {
        row_kernels tiled_keys;
        row_kernels tiled_values;
        row_kernels keys;
        row_kernels values;
    };
    /// Of all stores with these codecs.
    [[nodiscard]] kernels_of_rows kernels(simd::isa at_most) const noexcept {
        return {keys_.kernels(uses_tiles_, at_most),
                values_.kernels(uses_tiles_, at_most),
                keys_.kernels(false, at_most),
                values_.kernels(false, at_most)};
    }
    /// For attend(), one after the other; valid until rows are added or dropped.
    /// @param key_mean  what was subtracted from the keys, or nullptr
    [[nodiscard]] std::array<attend_segment, 2> segments(const kernels_of_rows& kernels,
                                                         const float* key_mean) const noexcept {
        const std::size_t tiled = keys_.num_tiled();
        const float* const mean = keys_.codec().centres_keys() ? key_mean : nullptr;
        return {attend_segment{.count = tiled,
                               .keys = keys_.rows(true),
                               .key_kernels = &kernels.tiled_keys,
                               .values = values_.rows(true),
                               .value_kernels = &kernels.tiled_values,
                               .key_mean = mean},
                attend_segment{.count = size() - tiled,
                               .keys = keys_.rows(false),
                               .key_kernels = &kernels.keys,
                               .values = values_.rows(false),
                               .value_kernels = &kernels.values,
                               .key_mean = mean}};
    }

    [[nodiscard]] std::size_t bytes_held() const noexcept {
        return keys_.bytes_held() + values_.bytes_held() + positions_.bytes_held();
    }
    void shrink_to_fit() {
        keys_.shrink_to_fit();
        values_.shrink_to_fit();
        positions_.shrink_to_fit();
    }

private:
    row_store(const codec_pair& codecs,
              std::size_t key_dim,
              std::size_t value_dim,
              arithmetic how,
              std::optional<code_tile> key_tile,
              std::optional<code_tile> value_tile)
        : uses_tiles_(how == arithmetic::integer && key_tile && value_tile),
          keys_(codecs.keys, key_dim, how, uses_tiles_ ? key_tile : std::nullopt),
          values_(codecs.values, value_dim, how, uses_tiles_ ? value_tile : std::nullopt) {}

    /// The newest rows of the codes, whose positions these are, move to their places.
    void sort_in(std::span<const token_index> added) {
        std::vector<token_index> positions = positions_.values();
        const std::size_t before = positions.size();
        positions.insert(positions.end(), added.begin(), added.end());
        std::vector<token_index> order(positions.size());
        std::iota(order.begin(), order.end(), token_index{0});
        std::inplace_merge(
            order.begin(),
            order.begin() + static_cast<std::ptrdiff_t>(before),
            order.end(),
            [&](token_index a, token_index b) { return positions[a] < positions[b]; });
        keys_.reorder(order);
        values_.reorder(order);
        std::sort(positions.begin(), positions.end());
        positions_.assign(positions);
    }

    bool uses_tiles_;
    coded_rows keys_;
    coded_rows values_;
    position_set positions_;
};

} // namespace v0
} // namespace kvcrush
