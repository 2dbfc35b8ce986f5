// SPDX-License-Identifier: Apache-2.0
/// @file
/// The keys or the values of one kv head in one codec: rows are added at the end, and dropped without being encoded again.
#pragma once

#include <kvcrush/attend/any_codec.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Rows of `dim` channels. Where the codec stores groups of rows, a row that is dropped leaves its group as it is, and the
/// group goes with its last row.
class coded_rows {
public:
    /// @throws std::invalid_argument if the codec cannot hold rows of `dim` channels
    coded_rows(any_codec codec, std::size_t dim) : codec_(std::move(codec)), dim_(dim) {
        codec_.validate_for(dim);
        group_bytes_ = codec_.group_bytes(dim);
    }

    [[nodiscard]] const any_codec& codec() const noexcept { return codec_; }
    [[nodiscard]] std::size_t dim() const noexcept { return dim_; }
    [[nodiscard]] std::size_t size() const noexcept {
        return index_.empty() ? bytes_.size() / group_bytes_ * codec_.group_size() : index_.size();
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
        return true;
    }

    /// Takes back the last `count` rows: what the last push() added, or a part of it.
    /// @param count  a multiple of the codec's group_size
    void pop(std::size_t count) noexcept {
        KVCRUSH_ASSERT(count <= size() && count % codec_.group_size() == 0);
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
        std::vector<std::byte> moved(bytes_.size());
        for (std::size_t i = 0; i < order.size(); ++i) {
            std::memcpy(moved.data() + i * group_bytes_,
                        bytes_.data() + order[i] * group_bytes_,
                        group_bytes_);
        }
        bytes_ = std::move(moved);
    }

    /// Floats of room that decode() needs.
    [[nodiscard]] std::size_t decode_room() const noexcept {
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
            const std::size_t row = index_.empty() ? first + i : index_[first + i];
            const std::span<const std::byte> bytes(bytes_.data() + row / group * group_bytes_,
                                                   group_bytes_);
            const std::span<float> to = out.subspan(i * dim_, dim_);
            if (group == 1) {
                codec_.decode(bytes, dim_, to);
                continue;
            }
            if (row / group != held) {
                held = row / group;
                codec_.decode(bytes, dim_, room.first(group * dim_));
            }
            std::copy_n(
                room.begin() + static_cast<std::ptrdiff_t>(row % group * dim_), dim_, to.begin());
        }
    }

    /// For attend(); valid until rows are added or dropped.
    [[nodiscard]] stored_rows rows() const noexcept {
        return {.data = bytes_.data(),
                .stride = group_bytes_,
                .index = index_.empty() ? nullptr : index_.data()};
    }

    [[nodiscard]] std::size_t bytes_held() const noexcept {
        return bytes_.capacity() + index_.capacity() * sizeof(token_index);
    }
    /// Gives back what is allocated but not used: std::vector's own only asks for it.
    void shrink_to_fit() {
        if (bytes_.capacity() > bytes_.size()) {
            bytes_ = std::vector<std::byte>(bytes_.begin(), bytes_.end());
        }
        if (index_.capacity() > index_.size()) {
            index_ = std::vector<token_index>(index_.begin(), index_.end());
        }
    }

private:
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
    std::vector<std::byte> bytes_;
    /// Row i lies in row index_[i] of the groups; empty where no group has lost a row.
    std::vector<token_index> index_;
};

} // namespace v0
} // namespace kvcrush
