// SPDX-License-Identifier: Apache-2.0
/// @file
/// The keys or the values of one kv head in one codec: rows are added at the end, and dropped without being encoded again.
#pragma once

#include <kvcrush/attend/any_codec.hpp>
#include <kvcrush/attend/code_tiles.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/cache/tiled_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Rows of `dim` channels. Where the codec stores groups of rows, a row that is dropped leaves its group as it is, and the
/// group goes with its last row.
///
/// Rows of some codecs can lie in tiles: those behind the last whole one then lie one by one.
class coded_rows {
public:
    /// @throws std::invalid_argument if the codec cannot hold rows of `dim` channels
    coded_rows(any_codec codec, std::size_t dim) : codec_(std::move(codec)), dim_(dim) {
        codec_.validate_for(dim);
        group_bytes_ = codec_.group_bytes(dim);
    }
    /// @param how     how attention computes with them
    /// @param layout  what codec.tile() says, for rows that are to lie in tiles
    /// @throws std::invalid_argument likewise
    coded_rows(any_codec codec,
               std::size_t dim,
               arithmetic how,
               const std::optional<code_tile>& layout)
        : coded_rows(std::move(codec), dim) {
        how_ = how;
        if (layout) {
            tiles_.emplace(*layout);
        }
    }

    [[nodiscard]] const any_codec& codec() const noexcept { return codec_; }
    [[nodiscard]] std::size_t dim() const noexcept { return dim_; }
    [[nodiscard]] std::size_t size() const noexcept {
        return num_tiled() + (index_.empty() ? bytes_.size() / group_bytes_ * codec_.group_size()
                                             : index_.size());
    }
    /// Rows [0, num_tiled()) lie in tiles.
    [[nodiscard]] std::size_t num_tiled() const noexcept { return tiles_ ? tiles_->size() : 0; }
    /// What attention reads the rows in tiles with, or the others.
    [[nodiscard]] row_kernels kernels(bool tiled, simd::isa at_most = simd::best()) const noexcept {
        return tiled ? codec_.tile_kernels(tiles_->layout().role, at_most)
                     : codec_.kernels(how_, at_most);
    }

    /// Encodes rows [count, dim] behind the others.
    /// @param count  a multiple of the codec's group_size
    /// @return false, with nothing changed, if the codec cannot hold one of them
    [[nodiscard]] bool push(std::span<const float> rows) {
        const std::size_t group_floats = codec_.group_size() * dim_;
        KVCRUSH_ASSERT(rows.size() % group_floats == 0);
        const std::size_t old_bytes = bytes_.size();
        const std::size_t old_rows = old_bytes / group_bytes_ * codec_.group_size();
        const std::size_t num_groups = rows.size() / group_floats;
        const std::size_t new_bytes = old_bytes + num_groups * group_bytes_;
        if (new_bytes >
            bytes_.capacity()) { // an eighth more: doubling would hold twice what is used
            bytes_.reserve(new_bytes + new_bytes / 8);
        }
        bytes_.resize(new_bytes);
        for (std::size_t g = 0; g < num_groups; ++g) {
            if (!codec_.encode(rows.subspan(g * group_floats, group_floats),
                               dim_,
                               {bytes_.data() + old_bytes + g * group_bytes_, group_bytes_})) {
                bytes_.resize(old_bytes);
                return false;
            }
        }
        if (!index_.empty()) {
            for (std::size_t i = 0; i < num_groups * codec_.group_size(); ++i) {
                index_.push_back(static_cast<token_index>(old_rows + i));
            }
        }
        if (tiles_) {
            fill_tiles();
        }
        return true;
    }

    /// Takes back the last `count` rows: what the last push() added, or a part of it.
    /// @param count  a multiple of the codec's group_size
    void pop(std::size_t count) noexcept {
        KVCRUSH_ASSERT(count <= size() && count % codec_.group_size() == 0);
        if (tiles_ && count * group_bytes_ > bytes_.size()) { // some of them lie in tiles
            std::vector<token_index> rest(size() - count);
            std::iota(rest.begin(), rest.end(), token_index{0});
            keep_in_tiles(rest);
            return;
        }
        bytes_.resize(bytes_.size() - count / codec_.group_size() * group_bytes_);
        if (!index_.empty()) {
            index_.resize(index_.size() - count);
        }
    }

    /// Drops all rows but these.
    /// @param kept  ascending
    void keep(std::span<const token_index> kept) {
        KVCRUSH_ASSERT(kept.empty() || kept.back() < size());
        if (kept.size() == size()) {
            return;
        }
        if (tiles_) {
            keep_in_tiles(kept);
            return;
        }
        const std::size_t group = codec_.group_size();
        if (group == 1) {
            move_groups(kept);
            return;
        }
        std::vector<token_index> rows(kept.begin(), kept.end());
        if (!index_.empty()) {
            for (token_index& row : rows) {
                row = index_[row];
            }
        }
        std::vector<token_index> groups;
        for (token_index& row : rows) {
            const auto from = static_cast<token_index>(row / group);
            if (groups.empty() || groups.back() != from) {
                groups.push_back(from);
            }
            row = static_cast<token_index>((groups.size() - 1) * group + row % group);
        }
        move_groups(groups);
        index_ = std::move(rows);
    }

    /// Puts rows into another order.
    /// @param order  order[i] is the row that becomes row i; each once
    /// @pre   the codec stores single rows
    void reorder(std::span<const token_index> order) {
        KVCRUSH_ASSERT(codec_.group_size() == 1 && order.size() == size());
        coded_rows moved = *this;
        std::vector<std::byte> room(group_bytes_);
        for (std::size_t i = 0; i < order.size(); ++i) {
            moved.write(i, read(order[i], room));
        }
        *this = std::move(moved);
    }

    /// Floats of room that decode() needs.
    [[nodiscard]] std::size_t decode_room() const noexcept {
        if (tiles_) { // the bytes of a row
            return (group_bytes_ + sizeof(float) - 1) / sizeof(float);
        }
        return codec_.group_size() == 1 ? 0 : codec_.group_size() * dim_;
    }

    /// Rows [first, first + count), as far as the codec kept them.
    /// @param[out] out   [count, dim]
    /// @param      room  decode_room() floats
    void decode(std::size_t first,
                std::size_t count,
                std::span<float> out,
                std::span<float> room) const noexcept {
        KVCRUSH_ASSERT(first + count <= size() && out.size() == count * dim_ &&
                       room.size() >= decode_room());
        const std::size_t group = codec_.group_size();
        std::size_t held = bytes_.size(); // no group
        for (std::size_t i = 0; i < count; ++i) {
            const std::span<float> to = out.subspan(i * dim_, dim_);
            if (group == 1) {
                codec_.decode(read(first + i, std::as_writable_bytes(room)), dim_, to);
                continue;
            }
            const std::size_t row = index_.empty() ? first + i : index_[first + i];
            const std::span<const std::byte> bytes(bytes_.data() + row / group * group_bytes_,
                                                   group_bytes_);
            if (row / group != held) {
                held = row / group;
                codec_.decode(bytes, dim_, room.first(group * dim_));
            }
            std::copy_n(
                room.begin() + static_cast<std::ptrdiff_t>(row % group * dim_), dim_, to.begin());
        }
    }

    /// Where rows lie in tiles, or the others, for attend(); valid until rows are added or dropped.
    [[nodiscard]] stored_rows rows(bool tiled) const noexcept {
        if (tiled) {
            return tiles_ ? tiles_->rows() : stored_rows{};
        }
        return {.data = bytes_.data(),
                .stride = group_bytes_,
                .index = index_.empty() ? nullptr : index_.data()};
    }

    [[nodiscard]] std::size_t bytes_held() const noexcept {
        return (tiles_ ? tiles_->bytes_held() : 0) + bytes_.capacity() +
               index_.capacity() * sizeof(token_index);
    }
    /// Gives back what is allocated but not used: std::vector's own only asks for it.
    void shrink_to_fit() {
        if (tiles_) {
            tiles_->shrink_to_fit();
        }
        if (bytes_.capacity() > bytes_.size()) {
            bytes_ = std::vector<std::byte>(bytes_.begin(), bytes_.end());
        }
        if (index_.capacity() > index_.size()) {
            index_ = std::vector<token_index>(index_.begin(), index_.end());
        }
    }

private:
    /// The bytes of a row, as the codec wrote them. @param room  for those that lie in a tile, [group_bytes_]
    [[nodiscard]] std::span<const std::byte> read(std::size_t row,
                                                  std::span<std::byte> room) const noexcept {
        if (row < num_tiled()) {
            tiles_->get(row, room.first(group_bytes_));
            return room.first(group_bytes_);
        }
        return {bytes_.data() + (row - num_tiled()) * group_bytes_, group_bytes_};
    }
    void write(std::size_t row, std::span<const std::byte> from) noexcept {
        if (row < num_tiled()) {
            tiles_->put(row, from);
        } else {
            std::memcpy(
                bytes_.data() + (row - num_tiled()) * group_bytes_, from.data(), group_bytes_);
        }
    }

    /// Moves rows into tiles, as many as fill whole ones.
    void fill_tiles() {
        const std::size_t before = num_tiled();
        const std::size_t tile_bytes = code_tile::num_rows * group_bytes_;
        const std::size_t num_tiles = bytes_.size() / tile_bytes;
        if (num_tiles == 0) {
            return;
        }
        tiles_->resize(before + num_tiles * code_tile::num_rows);
        for (std::size_t i = 0; i < num_tiles; ++i) {
            tiles_->fill(before / code_tile::num_rows + i,
                         {bytes_.data() + i * tile_bytes, tile_bytes});
        }
        bytes_ = std::vector<std::byte>(
            bytes_.begin() + static_cast<std::ptrdiff_t>(num_tiles * tile_bytes), bytes_.end());
    }

    /// keep(), where rows lie in tiles.
    void keep_in_tiles(std::span<const token_index> kept) {
        constexpr std::size_t num_rows = code_tile::num_rows;
        const std::size_t whole = kept.size() / num_rows * num_rows;
        std::vector<std::byte> moved(num_rows * group_bytes_);
        for (std::size_t i = 0; i < whole; i += num_rows) {
            if (kept[i + num_rows - 1] == i + num_rows - 1) { // all stay where they are
                continue;
            }
            for (std::size_t slot = 0; slot < num_rows; ++slot) {
                const std::span<std::byte> to(moved.data() + slot * group_bytes_, group_bytes_);
                const std::span<const std::byte> row = read(kept[i + slot], to);
                if (row.data() != to.data()) {
                    std::memcpy(to.data(), row.data(), group_bytes_);
                }
            }
            tiles_->fill(i / num_rows, moved);
        }
        std::vector<std::byte> room(group_bytes_);
        std::vector<std::byte> rest;
        rest.reserve((kept.size() - whole) * group_bytes_);
        for (const token_index i : kept.subspan(whole)) {
            const std::span<const std::byte> row = read(i, room);
            rest.insert(rest.end(), row.begin(), row.end());
        }
        tiles_->resize(whole);
        bytes_ = std::move(rest);
    }

    /// Moves the kept groups together and forgets the others.
    void move_groups(std::span<const token_index> kept) {
        for (std::size_t i = 0; i < kept.size(); ++i) {
            if (kept[i] != i) {
                std::memcpy(bytes_.data() + i * group_bytes_,
                            bytes_.data() + kept[i] * group_bytes_,
                            group_bytes_);
            }
        }
        bytes_.resize(kept.size() * group_bytes_);
    }

    any_codec codec_;
    std::size_t dim_;
    std::size_t group_bytes_ = 0;
    arithmetic how_ = arithmetic::exact;
    std::optional<tiled_rows> tiles_{};
    /// Groups of rows; behind tiles less rows than fill one.
    std::vector<std::byte> bytes_;
    /// Row i lies in row index_[i] of the groups; empty where no group has lost a row.
    std::vector<token_index> index_;
};

} // namespace v0
} // namespace kvcrush
