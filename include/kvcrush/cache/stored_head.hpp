// SPDX-License-Identifier: Apache-2.0
/// @file
/// The rows of one kv head, each stored as its age and importance ask for.
#pragma once

#include <kvcrush/attend/attend.hpp>
#include <kvcrush/cache/row_store.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/recipe/row_storage.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Rows lie in stores: sinks, one per tier, dense. They are numbered store by store; by_age() says which is the i-th oldest.
class stored_head {
public:
    /// @throws std::invalid_argument if a codec cannot hold such rows
    stored_head(const row_storage& how, std::size_t key_dim, std::size_t value_dim)
        : key_dim_(key_dim), value_dim_(value_dim) {
        const auto add = [&](const codec_pair& codecs) {
            stores_.emplace_back(codecs, key_dim, value_dim, how.attention);
        };
        add(how.sinks);
        for (const storage_tier& tier : how.tiers) {
            add(tier.codecs());
        }
        add(how.dense);
    }

    /// Sinks, tiers, dense.
    [[nodiscard]] std::span<const row_store> stores() const noexcept { return stores_; }
    [[nodiscard]] std::size_t rows() const noexcept {
        std::size_t count = 0;
        for (const row_store& store : stores_) {
            count += store.size();
        }
        return count;
    }
    [[nodiscard]] std::size_t dense_rows() const noexcept { return stores_.back().size(); }
    /// One more than the position of the newest row, 0 if there is none.
    [[nodiscard]] std::size_t end() const noexcept {
        std::size_t last = 0;
        for (const row_store& store : stores_) {
            last = (std::max)(last, store.positions().end());
        }
        return last;
    }
    /// What was subtracted from the keys of tiers that centre them; nullptr before the first encoding.
    [[nodiscard]] const float* key_mean() const noexcept {
        return key_mean_.empty() ? nullptr : key_mean_.data();
    }
    [[nodiscard]] bool is_tier(std::size_t store) const noexcept {
        return store > 0 && store + 1 < stores_.size();
    }

    /// A row and where its token stands in the text.
    struct place {
        token_index position;
        token_index row;
        friend bool operator<(const place& a, const place& b) noexcept {
            return a.position < b.position;
        }
    };
    /// All rows, the oldest first.
    [[nodiscard]] std::vector<place> by_age() const {
        std::vector<place> places;
        places.reserve(rows());
        for (const row_store& store : stores_) {
            for (const token_index position : store.positions().values()) {
                places.push_back({position, static_cast<token_index>(places.size())});
            }
        }
        std::sort(places.begin(), places.end());
        return places;
    }

    /// Adds dense rows.
    /// @param positions  ascending, above end()
    /// @return false, with nothing changed, if the dense codec cannot hold one of them
    [[nodiscard]] bool append(std::span<const float> keys,
                              std::span<const float> values,
                              std::span<const token_index> positions) {
        return stores_.back().push(keys, values, positions);
    }
    /// Takes over the dense rows of a head that stores them alike.
    void take_dense(stored_head& other) { stores_.back() = std::move(other.stores_.back()); }
    /// Takes back the newest `count` dense rows.
    void pop_dense(std::size_t count) noexcept { stores_.back().pop(count); }

    /// Encodes the oldest dense rows. The first call also fixes the mean of the keys, sinks left out, where a tier centres
    /// them. What does not fill a group of its codec waits.
    ///
    /// Groups grow at their end only. So a row that waited for its group while a younger one went to another tier cannot
    /// always follow there: it then goes to the first tier that can take it.
    /// @param tier_of    the tier of each of them; not looked at for sinks
    /// @param num_sinks  rows of the positions below go where sinks go
    /// @return false, with nothing changed, if a codec cannot hold a row
    [[nodiscard]] bool encode(std::span<const std::uint8_t> tier_of, std::size_t num_sinks);

    /// Stores every row in the tier asked for. Dense rows are encoded. Rows of a tier are decoded and encoded again only if
    /// that is a less precise one, for what was lost does not come back, and if both store single rows; all others stay.
    /// @param tier_of  [rows()], by age
    /// @return false if a codec cannot hold a row, which then stays where it was with those of its kind
    [[nodiscard]] bool store(std::span<const std::uint8_t> tier_of, std::size_t num_sinks);

    /// Drops all rows but these, and gives their memory back. Encoded bytes move and are never decoded.
    /// @param kept  rows by age, ascending
    void keep(std::span<const token_index> kept) {
        const std::vector<place> ages = by_age();
        std::vector<token_index> rows;
        rows.reserve(kept.size());
        for (const token_index i : kept) {
            rows.push_back(ages[i].row);
        }
        std::sort(rows.begin(), rows.end());
        auto next = rows.begin();
        token_index first = 0;
        for (row_store& store : stores_) {
            const auto end = static_cast<token_index>(first + store.size());
            std::vector<token_index> own;
            for (; next != rows.end() && *next < end; ++next) {
                own.push_back(*next - first);
            }
            store.keep(own);
            store.shrink_to_fit();
            first = end;
        }
    }

    /// Floats of room that read_key() and read_value() need.
    [[nodiscard]] std::size_t read_room() const noexcept {
        std::size_t room = 0;
        for (const row_store& store : stores_) {
            room = (std::max)({room, store.keys().decode_room(), store.values().decode_room()});
        }
        return room;
    }
    /// Key and value of a row as far as its codec kept them, in the basis of the model.
    void read_key(std::size_t row, std::span<float> out, std::span<float> room) const noexcept {
        const std::size_t store = store_of(row);
        stores_[store].keys().decode(row, 1, out, room);
        add_mean(store, out);
    }
    void read_value(std::size_t row, std::span<float> out, std::span<float> room) const noexcept {
        const std::size_t store = store_of(row);
        stores_[store].values().decode(row, 1, out, room);
    }

    [[nodiscard]] std::size_t bytes_held() const noexcept {
        std::size_t bytes = key_mean_.capacity() * sizeof(float);
        for (const row_store& store : stores_) {
            bytes += store.bytes_held();
        }
        return bytes;
    }
    void shrink_to_fit() {
        for (row_store& store : stores_) {
            store.shrink_to_fit();
        }
    }

private:
    /// Rows on their way from one store to another.
    struct moving_rows {
        std::vector<float> keys;
        std::vector<float> values;
        std::vector<token_index> positions;
    };

    /// Which store holds a row; the row becomes its number there.
    [[nodiscard]] std::size_t store_of(std::size_t& row) const noexcept {
        std::size_t store = 0;
        while (row >= stores_[store].size()) {
            row -= stores_[store++].size();
        }
        return store;
    }
    [[nodiscard]] bool centres(std::size_t store) const noexcept {
        return is_tier(store) && stores_[store].keys().codec().centres_keys();
    }
    void add_mean(std::size_t store, std::span<float> key) const noexcept {
        if (centres(store)) {
            for (std::size_t c = 0; c < key.size(); ++c) {
                key[c] += key_mean_[c];
            }
        }
    }

    /// The rows of a store, decoded.
    [[nodiscard]] moving_rows take(std::size_t store, std::span<const token_index> rows) const {
        moving_rows taken;
        taken.keys.resize(rows.size() * key_dim_);
        taken.values.resize(rows.size() * value_dim_);
        std::vector<float> room(read_room());
        const std::vector<token_index> positions = stores_[store].positions().values();
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const std::span<float> key(taken.keys.data() + i * key_dim_, key_dim_);
            stores_[store].keys().decode(rows[i], 1, key, room);
            add_mean(store, key);
            stores_[store].values().decode(
                rows[i], 1, {taken.values.data() + i * value_dim_, value_dim_}, room);
            taken.positions.push_back(positions[rows[i]]);
        }
        return taken;
    }

    /// Encodes rows into a store, less `mean` where it centres keys.
    [[nodiscard]] bool put(std::size_t store, moving_rows& rows, std::span<const float> mean) {
        if (centres(store)) {
            for (std::size_t i = 0; i < rows.keys.size(); ++i) {
                rows.keys[i] -= mean[i % key_dim_];
            }
        }
        return stores_[store].push(rows.keys, rows.values, rows.positions);
    }

    [[nodiscard]] std::vector<std::size_t> destinations(std::span<const token_index> positions,
                                                        std::span<const std::uint8_t> tier_of,
                                                        std::size_t num_sinks) const;
    void leave_open_groups(std::vector<std::size_t>& store_of_row) const;
    [[nodiscard]] std::vector<float> mean_key(std::span<const float> keys,
                                              std::span<const std::size_t> store_of_row) const;
    [[nodiscard]] std::vector<moving_rows>
    distribute(const moving_rows& rows, std::span<const std::size_t> store_of_row) const;
    [[nodiscard]] bool demote(std::size_t store, std::vector<std::uint8_t> tier_of);

    std::size_t key_dim_;
    std::size_t value_dim_;
    std::vector<row_store> stores_;
    std::vector<float> key_mean_; ///< [key_dim], or empty before the first encoding
};

/// The store of each dense row that is to be encoded.
inline std::vector<std::size_t> stored_head::destinations(std::span<const token_index> positions,
                                                          std::span<const std::uint8_t> tier_of,
                                                          std::size_t num_sinks) const {
    std::vector<std::size_t> result(tier_of.size(), 0);
    for (std::size_t i = 0; i < result.size(); ++i) {
        if (positions[i] < num_sinks) {
            continue;
        }
        std::size_t store = 1 + tier_of[i];
        // The tier that it waited for is one that takes it.
        for (std::size_t s = 1; !stores_[store].takes(positions[i]); ++s) {
            store = s;
        }
        result[i] = store;
    }
    return result;
}

/// Rows that do not fill the last group of their store stay where they are.
inline void stored_head::leave_open_groups(std::vector<std::size_t>& store_of_row) const {
    std::vector<std::size_t> waiting(stores_.size(), 0);
    for (const std::size_t store : store_of_row) {
        ++waiting[store];
    }
    for (std::size_t s = 0; s + 1 < stores_.size(); ++s) {
        waiting[s] %= stores_[s].group_size();
    }
    for (std::size_t i = store_of_row.size(); i-- > 0;) {
        if (waiting[store_of_row[i]] > 0) {
            --waiting[store_of_row[i]];
            store_of_row[i] = stores_.size() - 1;
        }
    }
}

/// The mean of the keys that go to a tier; empty if none does.
inline std::vector<float> stored_head::mean_key(std::span<const float> keys,
                                                std::span<const std::size_t> store_of_row) const {
    std::vector<double> sums(key_dim_, 0.0);
    std::size_t counted = 0;
    for (std::size_t i = 0; i < store_of_row.size(); ++i) {
        if (is_tier(store_of_row[i])) {
            for (std::size_t c = 0; c < key_dim_; ++c) {
                sums[c] += static_cast<double>(keys[i * key_dim_ + c]);
            }
            ++counted;
        }
    }
    std::vector<float> mean(counted == 0 ? 0 : key_dim_);
    std::transform(
        sums.begin(),
        sums.begin() + static_cast<std::ptrdiff_t>(mean.size()),
        mean.begin(),
        [counted](double sum) { return static_cast<float>(sum / static_cast<double>(counted)); });
    return mean;
}

/// The rows that go to each store but the dense one.
inline std::vector<stored_head::moving_rows>
stored_head::distribute(const moving_rows& rows, std::span<const std::size_t> store_of_row) const {
    const std::size_t dense = stores_.size() - 1;
    std::vector<moving_rows> to(dense);
    for (std::size_t i = 0; i < store_of_row.size(); ++i) {
        if (store_of_row[i] == dense) {
            continue;
        }
        moving_rows& own = to[store_of_row[i]];
        const auto key = rows.keys.begin() + static_cast<std::ptrdiff_t>(i * key_dim_);
        const auto value = rows.values.begin() + static_cast<std::ptrdiff_t>(i * value_dim_);
        own.keys.insert(own.keys.end(), key, key + static_cast<std::ptrdiff_t>(key_dim_));
        own.values.insert(own.values.end(), value, value + static_cast<std::ptrdiff_t>(value_dim_));
        own.positions.push_back(rows.positions[i]);
    }
    return to;
}

inline bool stored_head::encode(std::span<const std::uint8_t> tier_of, std::size_t num_sinks) {
    const std::size_t dense = stores_.size() - 1;
    if (stores_.size() == 2 || tier_of.empty()) { // no tier
        return true;
    }
    KVCRUSH_ASSERT(tier_of.size() <= dense_rows());
    std::vector<token_index> all(tier_of.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
        all[i] = static_cast<token_index>(i);
    }
    const moving_rows old = take(dense, all);
    std::vector<std::size_t> store_of_row = destinations(old.positions, tier_of, num_sinks);
    leave_open_groups(store_of_row);

    std::vector<float> mean = key_mean_;
    for (std::size_t s = 1; s < dense && mean.empty(); ++s) {
        if (centres(s)) {
            mean = mean_key(old.keys, store_of_row);
            break;
        }
    }
    std::vector<moving_rows> to = distribute(old, store_of_row);
    for (std::size_t s = 0; s < dense; ++s) {
        if (!put(s, to[s], mean)) {
            while (s-- > 0) {
                stores_[s].drop(to[s].positions);
            }
            return false;
        }
    }
    std::vector<token_index> staying;
    for (std::size_t i = 0; i < dense_rows(); ++i) {
        if (i >= store_of_row.size() || store_of_row[i] == dense) {
            staying.push_back(static_cast<token_index>(i));
        }
    }
    stores_.back().keep(staying);
    key_mean_ = std::move(mean);
    return true;
}

inline bool stored_head::store(std::span<const std::uint8_t> tier_of, std::size_t num_sinks) {
    KVCRUSH_ASSERT(tier_of.size() == rows());
    const std::vector<place> ages = by_age();
    std::vector<std::uint8_t> tier_of_row(ages.size());
    for (std::size_t i = 0; i < ages.size(); ++i) {
        tier_of_row[ages[i].row] = tier_of[i];
    }
    std::vector<std::vector<std::uint8_t>> by_store;
    auto next = tier_of_row.begin();
    for (const row_store& store : stores_) {
        const auto end = next + static_cast<std::ptrdiff_t>(store.size());
        by_store.emplace_back(next, end);
        next = end;
    }
    bool all_fit = true;
    // From the last tier but one to the first: rows that have moved are not looked at again.
    for (std::size_t s = stores_.size() - 2; s-- > 1;) {
        all_fit = demote(s, std::move(by_store[s])) && all_fit;
    }
    return encode(by_store.back(), num_sinks) && all_fit;
}

/// Moves rows of a tier to less precise ones.
/// @param tier_of  of the rows of this store
inline bool stored_head::demote(std::size_t store, std::vector<std::uint8_t> tier_of) {
    bool all_fit = true;
    for (std::size_t to = store + 1; is_tier(to); ++to) {
        if (stores_[store].group_size() != 1 || stores_[to].group_size() != 1) {
            continue;
        }
        std::vector<token_index> leaving;
        for (std::size_t i = 0; i < tier_of.size(); ++i) {
            if (tier_of[i] + std::size_t{1} == to) {
                leaving.push_back(static_cast<token_index>(i));
            }
        }
        moving_rows rows = take(store, leaving);
        if (!put(to, rows, key_mean_)) {
            all_fit = false;
            continue;
        }
        stores_[store].drop(rows.positions);
        std::erase_if(tier_of, [to](std::uint8_t tier) { return tier + std::size_t{1} == to; });
    }
    return all_fit;
}

} // namespace v0
} // namespace kvcrush
