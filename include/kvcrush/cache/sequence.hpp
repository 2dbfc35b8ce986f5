// SPDX-License-Identifier: Apache-2.0
/// @file
/// What an engine keeps of one layer of one sequence: rows arrive dense, leave the window encoded, are attended to as they
/// lie, and are evicted without being encoded again.
#pragma once

#include <kvcrush/attend/any_codec.hpp>
#include <kvcrush/attend/attend.hpp>
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/cache/row_store.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/executor.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

struct sequence_options {
    std::size_t num_kv_heads = 0;
    std::size_t key_dim = 0;
    std::size_t value_dim = 0;
    /// How rows are held until they leave the window.
    codec_pair dense{};
    /// The first tokens have a codec of their own: whole models depend on them, and they are few.
    std::size_t num_sink_tokens = 4;
    codec_pair sinks{};
    /// Where the other rows go, the most precise first; with none, all rows stay dense. Keys are centred here alone: sinks
    /// lie far off the mean, and dense rows come before there is one.
    std::vector<codec_pair> tiers{};
    /// Newest rows that flush() leaves dense.
    std::size_t window = 128;
    /// How attend() computes with encoded rows.
    arithmetic attention = arithmetic::exact;

    /// @throws std::invalid_argument if extents are 0 or a codec cannot hold such rows
    void validate() const {
        detail::require(num_kv_heads > 0 && key_dim > 0 && value_dim > 0,
                        "kv_sequence: num_kv_heads, key_dim and value_dim are ",
                        num_kv_heads,
                        ", ",
                        key_dim,
                        " and ",
                        value_dim,
                        "; each must be at least 1");
        detail::require(tiers.size() <= 64,
                        "kv_sequence: there are ",
                        tiers.size(),
                        " tiers; 64 at most are allowed");
        detail::require(sinks.group_size() == 1 && dense.group_size() == 1,
                        "kv_sequence: sinks and dense rows need codecs of single rows");
        const auto check_pair = [this](const codec_pair& pair) {
            pair.keys.validate_for(key_dim);
            pair.values.validate_for(value_dim);
        };
        check_pair(dense);
        check_pair(sinks);
        std::for_each(tiers.begin(), tiers.end(), check_pair);
    }
};

/// One layer of one sequence. The rows of a kv head lie in stores: sinks, one per tier, the dense window. Row i of a head is
/// its i-th row in this order; reading_order() sorts them by position.
///
///     kv_sequence layer({.num_kv_heads = 8, .key_dim = 128, .value_dim = 128,
///                        .sinks = {q8_0_codec{}, q8_0_codec{}}, .tiers = {{int8_row_codec{}, q4_0_codec{}}}});
///     layer.append(keys, values);   // every token
///     layer.flush();                // now and then: rows that left the window
///     layer.attend(queries, output);
/// Not to be used from several threads at once; attend() itself may be given an executor. A copy is a snapshot.
class kv_sequence {
public:
    /// @throws std::invalid_argument as sequence_options::validate
    explicit kv_sequence(sequence_options options) : options_(std::move(options)) {
        options_.validate();
        const auto add = [this](std::vector<row_store>& stores, const codec_pair& codecs) {
            stores.emplace_back(codecs, options_.key_dim, options_.value_dim);
        };
        head_rows head;
        add(head.stores, options_.sinks);
        for (const codec_pair& tier : options_.tiers) {
            add(head.stores, tier);
        }
        add(head.stores, options_.dense);
        heads_.assign(options_.num_kv_heads, head);
    }

    [[nodiscard]] const sequence_options& options() const noexcept { return options_; }
    /// Tokens appended so far, evicted ones included: the position of the next.
    [[nodiscard]] std::size_t tokens_seen() const noexcept { return tokens_seen_; }
    /// Rows that a kv head holds, and those of them that are still dense.
    [[nodiscard]] std::size_t rows(std::size_t head) const noexcept {
        std::size_t count = 0;
        for (const row_store& store : heads_[head].stores) {
            count += store.size();
        }
        return count;
    }
    [[nodiscard]] std::size_t dense_rows(std::size_t head) const noexcept {
        return heads_[head].stores.back().size();
    }
    /// The stores of a head: sinks, tiers, dense.
    [[nodiscard]] std::span<const row_store> stores(std::size_t head) const noexcept {
        return heads_[head].stores;
    }

    /// Rows of a head sorted by position: result[i] is the row of the i-th oldest token that the head holds.
    [[nodiscard]] std::vector<token_index> reading_order(std::size_t head) const {
        std::vector<std::pair<token_index, token_index>> places; // position, row
        for (const row_store& store : heads_[head].stores) {
            for (const token_index position : store.positions().values()) {
                places.emplace_back(position, static_cast<token_index>(places.size()));
            }
        }
        std::sort(places.begin(), places.end());
        std::vector<token_index> order(places.size());
        std::transform(places.begin(), places.end(), order.begin(), [](const auto& place) {
            return place.second;
        });
        return order;
    }

    /// Adds one token to every head.
    /// @param keys    [num_kv_heads, key_dim], after RoPE
    /// @param values  [num_kv_heads, value_dim]
    /// @return false, with nothing changed, if a value is NaN, infinite or too large for the dense codec
    [[nodiscard]] bool append(std::span<const float> keys, std::span<const float> values) {
        KVCRUSH_ASSERT(keys.size() == options_.num_kv_heads * options_.key_dim &&
                       values.size() == options_.num_kv_heads * options_.value_dim);
        const auto position = static_cast<token_index>(tokens_seen_);
        for (std::size_t head = 0; head < heads_.size(); ++head) {
            if (!append_row(head,
                            keys.subspan(head * options_.key_dim, options_.key_dim),
                            values.subspan(head * options_.value_dim, options_.value_dim),
                            position)) {
                for (std::size_t done = 0; done < head; ++done) {
                    heads_[done].stores.back().pop(1);
                }
                tokens_seen_ = position;
                return false;
            }
        }
        return true;
    }

    /// Adds one row to one head, for caches that were built elsewhere and lack tokens already.
    /// @param position  above those of the head's rows
    /// @return false, with nothing changed, as above
    [[nodiscard]] bool append_row(std::size_t head,
                                  std::span<const float> key,
                                  std::span<const float> value,
                                  token_index position) {
        if (!heads_[head].stores.back().push(key, value, {&position, 1})) {
            return false;
        }
        tokens_seen_ = (std::max)(tokens_seen_, std::size_t{position} + 1);
        return true;
    }

    /// Encodes the dense rows but the newest `window`, into the first tier; sinks go where sinks go. Where a codec takes
    /// groups of rows, what does not fill one waits.
    /// @return false if a codec cannot hold a row: that head, and those behind it, stay as they were
    [[nodiscard]] bool flush() { return flush(options_.window); }
    [[nodiscard]] bool flush(std::size_t window) {
        std::vector<std::uint8_t> first_tier;
        for (std::size_t head = 0; head < heads_.size(); ++head) {
            const std::size_t dense = dense_rows(head);
            first_tier.assign(dense > window ? dense - window : 0, 0);
            if (!encode(head, first_tier)) {
                return false;
            }
        }
        return true;
    }

    /// Encodes the oldest dense rows of a head. The first call of a head also fixes the mean of its keys, sinks left out,
    /// where a tier centres keys.
    ///
    /// Rows of a tier ascend. So a row that waited for its group while a younger one went to another tier cannot follow
    /// there: it then goes to the first tier that holds nothing younger.
    /// @param tier_of  the tier of each of them, below options().tiers.size(); not looked at for sinks
    /// @return false, with nothing changed, if a codec cannot hold a row
    [[nodiscard]] bool encode(std::size_t head, std::span<const std::uint8_t> tier_of);

    /// Drops all rows of each head but the kept ones and gives their memory back. Encoded bytes move and are never decoded.
    /// @param kept  per kv head, indices of rows in reading order; with 0 heads nothing changes
    void evict(const selection& kept) {
        KVCRUSH_ASSERT(kept.num_kv_heads() == 0 || kept.num_kv_heads() == heads_.size());
        for (std::size_t head = 0; head < kept.num_kv_heads(); ++head) {
            const std::vector<token_index> order = reading_order(head);
            std::vector<token_index> rows;
            rows.reserve(kept.kept(head).size());
            for (const token_index i : kept.kept(head)) {
                rows.push_back(order[i]);
            }
            std::sort(rows.begin(), rows.end());
            auto next = rows.begin();
            token_index first = 0;
            for (row_store& store : heads_[head].stores) {
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
    }

    /// Rows of a head in reading order, as far as their codecs kept them: what scorers of keys look at.
    /// @param[out] keys    [rows, key_dim]
    /// @param[out] values  [rows, value_dim]
    void decode(std::size_t head, std::span<float> keys, std::span<float> values) const;

    /// Attention of the newest tokens, whose rows are there already, over all rows; see kvcrush::attend.
    /// @pre with several queries, the rows of all but the first of them are the last rows of each head: dense still, or
    ///      there is but one tier
    /// @param[in]  queries  [num_q_heads, num_queries, key_dim]
    /// @param[out] output   [num_q_heads, num_queries, value_dim]
    /// @note weights, if asked for, come in the order of rows, not in reading order
    /// @note allocates where it needs more memory than the call before
    template <Executor E = serial_executor>
    void attend(const query_view& queries,
                std::span<float> output,
                const attend_options& how = {},
                E&& execute = {},
                simd::isa at_most = simd::best()) {
        collect_segments(at_most);
        const std::span<const attend_head> heads(attend_heads_);
        const std::size_t floats = attend_workspace(queries, heads, options_.value_dim, how);
        if (workspace_.size() < floats) {
            workspace_.resize(floats + floats / 2);
        }
        kvcrush::attend(queries,
                        heads,
                        options_.value_dim,
                        output,
                        workspace_,
                        how,
                        std::forward<E>(execute),
                        at_most);
    }

    /// Everything that is allocated for rows: codes with their metadata, key means, positions [bytes].
    [[nodiscard]] std::size_t bytes_held() const noexcept {
        std::size_t bytes = 0;
        for (const head_rows& head : heads_) {
            bytes += head.key_mean.capacity() * sizeof(float);
            for (const row_store& store : head.stores) {
                bytes += store.bytes_held();
            }
        }
        return bytes;
    }

    /// Gives back what is allocated for rows that may still come.
    void shrink_to_fit() {
        for (head_rows& head : heads_) {
            for (row_store& store : head.stores) {
                store.shrink_to_fit();
            }
        }
    }

private:
    struct head_rows {
        std::vector<row_store> stores; ///< sinks, tiers, dense
        std::vector<float> key_mean;   ///< [key_dim], or empty before the first encoding
    };

    [[nodiscard]] bool centres_keys() const noexcept {
        return std::any_of(options_.tiers.begin(),
                           options_.tiers.end(),
                           [](const codec_pair& tier) { return tier.keys.centres_keys(); });
    }

    /// Whether this store of a head is a tier.
    [[nodiscard]] bool is_tier(std::size_t store) const noexcept {
        return store > 0 && store <= options_.tiers.size();
    }

    void collect_segments(simd::isa at_most);

    sequence_options options_;
    std::vector<head_rows> heads_;
    std::size_t tokens_seen_ = 0;
    // What attend() works in, kept from call to call.
    std::vector<row_kernels> kernels_;
    std::vector<attend_segment> segments_;
    std::vector<attend_head> attend_heads_;
    std::vector<float> workspace_;
};

inline bool kv_sequence::encode(std::size_t head, std::span<const std::uint8_t> tier_of) {
    head_rows& rows = heads_[head];
    row_store& dense = rows.stores.back();
    KVCRUSH_ASSERT(tier_of.size() <= dense.size());
    if (options_.tiers.empty() || tier_of.empty()) {
        return true;
    }
    const std::size_t key_dim = options_.key_dim;
    const std::size_t value_dim = options_.value_dim;
    const std::size_t count = tier_of.size();
    std::vector<float> keys(count * key_dim);
    std::vector<float> values(count * value_dim);
    dense.keys().decode(0, count, keys);
    dense.values().decode(0, count, values);

    const std::vector<token_index> positions = dense.positions().values();
    // Store of each row. Rows that do not fill the last group of their store wait in the window.
    std::vector<std::size_t> store_of(count);
    std::vector<std::size_t> waiting(rows.stores.size(), 0);
    for (std::size_t i = 0; i < count; ++i) {
        KVCRUSH_ASSERT(tier_of[i] < options_.tiers.size());
        std::size_t store = 0;
        if (positions[i] >= options_.num_sink_tokens) {
            store = 1 + tier_of[i];
            // The tier that it waited for is one of them.
            for (std::size_t s = 1; rows.stores[store].positions().end() > positions[i]; ++s) {
                KVCRUSH_ASSERT(is_tier(s));
                store = s;
            }
        }
        store_of[i] = store;
        ++waiting[store];
    }
    std::vector<token_index> staying;
    for (std::size_t s = 0; s + 1 < rows.stores.size(); ++s) {
        const codec_pair& codecs = s == 0 ? options_.sinks : options_.tiers[s - 1];
        waiting[s] %= codecs.group_size();
    }
    for (std::size_t i = count; i-- > 0;) {
        if (waiting[store_of[i]] > 0) {
            --waiting[store_of[i]];
            staying.push_back(static_cast<token_index>(i));
            store_of[i] = rows.stores.size() - 1;
        }
    }
    std::reverse(staying.begin(), staying.end());

    std::vector<float> mean = rows.key_mean;
    if (mean.empty() && centres_keys()) {
        std::vector<double> sums(key_dim, 0.0);
        std::size_t counted = 0;
        for (std::size_t i = 0; i < count; ++i) {
            if (store_of[i] != 0 && store_of[i] + 1 < rows.stores.size()) {
                for (std::size_t c = 0; c < key_dim; ++c) {
                    sums[c] += static_cast<double>(keys[i * key_dim + c]);
                }
                ++counted;
            }
        }
        if (counted > 0) {
            mean.resize(key_dim);
            std::transform(sums.begin(), sums.end(), mean.begin(), [counted](double sum) {
                return static_cast<float>(sum / static_cast<double>(counted));
            });
        }
    }

    std::vector<std::size_t> added(rows.stores.size(), 0);
    for (std::size_t s = 0; s + 1 < rows.stores.size(); ++s) {
        row_store& store = rows.stores[s];
        const bool centred = is_tier(s) && store.keys().codec().centres_keys();
        std::vector<float> own_keys;
        std::vector<float> own_values;
        std::vector<token_index> own_positions;
        for (std::size_t i = 0; i < count; ++i) {
            if (store_of[i] != s) {
                continue;
            }
            for (std::size_t c = 0; c < key_dim; ++c) {
                own_keys.push_back(keys[i * key_dim + c] - (centred ? mean[c] : 0.0F));
            }
            own_values.insert(own_values.end(),
                              values.begin() + static_cast<std::ptrdiff_t>(i * value_dim),
                              values.begin() + static_cast<std::ptrdiff_t>((i + 1) * value_dim));
            own_positions.push_back(positions[i]);
        }
        if (!own_positions.empty() && !store.push(own_keys, own_values, own_positions)) {
            while (s-- > 0) {
                rows.stores[s].pop(added[s]);
            }
            return false;
        }
        added[s] = own_positions.size();
    }
    for (std::size_t i = count; i < dense.size(); ++i) {
        staying.push_back(static_cast<token_index>(i));
    }
    dense.keep(staying);
    rows.key_mean = std::move(mean);
    return true;
}

inline void
kv_sequence::decode(std::size_t head, std::span<float> keys, std::span<float> values) const {
    const std::size_t key_dim = options_.key_dim;
    const std::size_t value_dim = options_.value_dim;
    const std::vector<token_index> order = reading_order(head);
    KVCRUSH_ASSERT(keys.size() == order.size() * key_dim &&
                   values.size() == order.size() * value_dim);
    std::vector<float> stored_keys(keys.size());
    std::vector<float> stored_values(values.size());
    std::size_t first = 0;
    for (std::size_t s = 0; s < heads_[head].stores.size(); ++s) {
        const row_store& store = heads_[head].stores[s];
        const std::span<float> own(stored_keys.data() + first * key_dim, store.size() * key_dim);
        store.keys().decode(0, store.size(), own);
        if (is_tier(s) && store.keys().codec().centres_keys()) {
            for (std::size_t i = 0; i < own.size(); ++i) {
                own[i] += heads_[head].key_mean[i % key_dim];
            }
        }
        store.values().decode(
            0, store.size(), {stored_values.data() + first * value_dim, store.size() * value_dim});
        first += store.size();
    }
    for (std::size_t i = 0; i < order.size(); ++i) {
        std::copy_n(stored_keys.data() + order[i] * key_dim, key_dim, keys.data() + i * key_dim);
        std::copy_n(
            stored_values.data() + order[i] * value_dim, value_dim, values.data() + i * value_dim);
    }
}

inline void kv_sequence::collect_segments(simd::isa at_most) {
    // Tables refer to codecs, which every store of a kind shares.
    kernels_.clear();
    for (const row_store& store : heads_.front().stores) {
        kernels_.push_back(store.keys().codec().kernels(options_.attention, at_most));
        kernels_.push_back(store.values().codec().kernels(options_.attention, at_most));
    }
    segments_.clear();
    for (const head_rows& head : heads_) {
        const float* const mean = head.key_mean.empty() ? nullptr : head.key_mean.data();
        for (std::size_t s = 0; s < head.stores.size(); ++s) {
            segments_.push_back(head.stores[s].segment(
                kernels_[2 * s], kernels_[2 * s + 1], is_tier(s) ? mean : nullptr));
        }
    }
    const std::size_t per_head = heads_.front().stores.size();
    attend_heads_.clear();
    for (std::size_t head = 0; head < heads_.size(); ++head) {
        attend_heads_.push_back(std::span(segments_).subspan(head * per_head, per_head));
    }
}

} // namespace v0
} // namespace kvcrush
