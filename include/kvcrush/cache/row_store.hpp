// SPDX-License-Identifier: Apache-2.0
/// @file
/// Keys, values and positions of rows of one kv head that are stored alike.
#pragma once

#include <kvcrush/attend/any_codec.hpp>
#include <kvcrush/attend/attend.hpp>
#include <kvcrush/cache/coded_rows.hpp>
#include <kvcrush/cache/position_set.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// How rows are stored: keys and values choose apart.
struct codec_pair {
    any_codec keys{};
    any_codec values{};

    /// Rows that can be encoded at a time: a multiple of both groups.
    [[nodiscard]] std::size_t group_size() const noexcept {
        const std::size_t a = keys.group_size();
        const std::size_t b = values.group_size();
        std::size_t common = (std::max)(a, b);
        while (common % a != 0 || common % b != 0) {
            common += (std::max)(a, b);
        }
        return common;
    }
};

/// Rows in ascending order of their positions.
class row_store {
public:
    /// @throws std::invalid_argument if a codec cannot hold such rows
    row_store(const codec_pair& codecs, std::size_t key_dim, std::size_t value_dim)
        : keys_(codecs.keys, key_dim), values_(codecs.values, value_dim) {}

    [[nodiscard]] std::size_t size() const noexcept { return positions_.size(); }
    [[nodiscard]] const position_set& positions() const noexcept { return positions_; }
    [[nodiscard]] const coded_rows& keys() const noexcept { return keys_; }
    [[nodiscard]] const coded_rows& values() const noexcept { return values_; }

    /// Encodes rows behind the others.
    /// @param keys       [count, key_dim], less the mean where the codec centres keys
    /// @param values     [count, value_dim]
    /// @param positions  [count], ascending
    /// @return false, with nothing changed, if a codec cannot hold one of them
    [[nodiscard]] bool push(std::span<const float> keys,
                            std::span<const float> values,
                            std::span<const token_index> positions) {
        if (!keys_.push(keys)) {
            return false;
        }
        if (!values_.push(values)) {
            keys_.pop(positions.size());
            return false;
        }
        for (const token_index position : positions) {
            positions_.push(position);
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

    /// For attend(); valid until rows are added or dropped.
    /// @param key_mean  what was subtracted from the keys, or nullptr
    [[nodiscard]] attend_segment segment(const row_kernels& keys,
                                         const row_kernels& values,
                                         const float* key_mean) const noexcept {
        return {.count = size(),
                .keys = keys_.rows(),
                .key_kernels = &keys,
                .values = values_.rows(),
                .value_kernels = &values,
                .key_mean = keys_.codec().centres_keys() ? key_mean : nullptr};
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
    coded_rows keys_;
    coded_rows values_;
    position_set positions_;
};

} // namespace v0
} // namespace kvcrush
