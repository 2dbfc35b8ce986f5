// SPDX-License-Identifier: Apache-2.0
/// @file
/// What an engine keeps of one layer of one sequence: rows arrive dense, leave the window encoded, are attended to as they
/// lie, and are evicted without being encoded again.
#pragma once

#include <kvcrush/attend/attend.hpp>
#include <kvcrush/cache/stored_head.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/executor.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/recipe/row_storage.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// How wide the rows of a layer are.
struct layer_extent {
    std::size_t num_kv_heads = 0;
    std::size_t key_dim = 0;
    std::size_t value_dim = 0;

    friend constexpr bool operator==(const layer_extent&, const layer_extent&) = default;
};

/// One layer of one sequence. Each kv head holds rows of its own, see stored_head, and may hold other tokens than its
/// neighbours.
///
///     kv_sequence layer({.num_kv_heads = 8, .key_dim = 128, .value_dim = 128},
///                       {.sinks = {q8_0_codec{}, q8_0_codec{}}, .tiers = {{int8_row_codec{}, q4_0_codec{}}}});
///     layer.append(keys, values);   // every token
///     layer.flush();                // now and then: rows that left the window
///     layer.attend(queries, output);
/// Every call checks its arguments in every build, and throws before anything has changed.
/// Not to be used from several threads at once; attend() itself may be given an executor. A copy is a snapshot.
class kv_sequence {
public:
    /// @throws std::invalid_argument if extents are 0 or 2^32 and more, or as row_storage::validate_for
    explicit kv_sequence(const layer_extent& extent, row_storage storage = {})
        : extent_(extent), storage_(std::move(storage)) {
        const auto [least, most] =
            std::minmax({extent.num_kv_heads, extent.key_dim, extent.value_dim});
        detail::require(least > 0 && most <= (std::numeric_limits<std::uint32_t>::max)(),
                        "kv_sequence: num_kv_heads, key_dim and value_dim are ",
                        extent.num_kv_heads,
                        ", ",
                        extent.key_dim,
                        " and ",
                        extent.value_dim,
                        "; each must be at least 1 and below 2^32");
        storage_.validate_for(extent.key_dim, extent.value_dim);
        heads_ = std::vector<stored_head>(extent.num_kv_heads,
                                          stored_head(storage_, extent.key_dim, extent.value_dim));
    }

    [[nodiscard]] const layer_extent& extent() const noexcept { return extent_; }
    [[nodiscard]] const row_storage& storage() const noexcept { return storage_; }
    /// Another way to store what is not encoded yet. Dense rows stay as they are, in the codec that they came in.
    /// @throws std::invalid_argument if rows are encoded already, or as row_storage::validate_for
    void set_storage(row_storage storage) {
        for (const stored_head& head : heads_) {
            detail::require(head.dense_rows() == head.rows(),
                            "kv_sequence: rows are encoded already; how they are stored cannot "
                            "change any more");
        }
        if (tokens_seen_ > 0) {
            storage.dense = storage_.dense;
        }
        storage.validate_for(extent_.key_dim, extent_.value_dim);
        for (stored_head& head : heads_) {
            stored_head fresh(storage, extent_.key_dim, extent_.value_dim);
            if (tokens_seen_ > 0) {
                fresh.take_dense(head);
            }
            head = std::move(fresh);
        }
        storage_ = std::move(storage);
    }

    /// Tokens appended so far, evicted ones included: the position of the next.
    [[nodiscard]] std::size_t tokens_seen() const noexcept { return tokens_seen_; }
    /// Rows that a kv head holds, and those of them that are still dense.
    [[nodiscard]] std::size_t rows(std::size_t head) const noexcept { return heads_[head].rows(); }
    [[nodiscard]] std::size_t dense_rows(std::size_t head) const noexcept {
        return heads_[head].dense_rows();
    }
    [[nodiscard]] std::span<const stored_head> heads() const noexcept { return heads_; }

    /// Adds tokens to every head.
    /// @param keys    [tokens, num_kv_heads, key_dim], after RoPE
    /// @param values  [tokens, num_kv_heads, value_dim]
    /// @return false, with nothing changed, if a value is NaN, infinite or too large for the dense codec
    /// @throws std::invalid_argument unless both hold as many whole tokens; beyond 2^32 - 2 tokens
    [[nodiscard]] bool append(std::span<const float> keys, std::span<const float> values);

    /// Adds one row to one head, for caches that were built elsewhere and lack tokens already.
    /// @param position  above those of the head's rows
    /// @return false, with nothing changed, as above
    /// @throws std::invalid_argument for another head, width or position
    [[nodiscard]] bool append_row(std::size_t head,
                                  std::span<const float> key,
                                  std::span<const float> value,
                                  token_index position) {
        require_head(head, "append_row");
        detail::require(key.size() == extent_.key_dim && value.size() == extent_.value_dim,
                        "kv_sequence: append_row takes rows of ",
                        extent_.key_dim,
                        " and ",
                        extent_.value_dim,
                        " channels; they have ",
                        key.size(),
                        " and ",
                        value.size());
        detail::require(position >= heads_[head].end() && position < last_position,
                        "kv_sequence: append_row at position ",
                        position,
                        "; head ",
                        head,
                        " takes positions from ",
                        heads_[head].end(),
                        " on, below ",
                        last_position);
        if (!heads_[head].append(key, value, {&position, 1})) {
            return false;
        }
        tokens_seen_ = (std::max)(tokens_seen_, std::size_t{position} + 1);
        return true;
    }

    /// Encodes the dense rows but the newest `window`, into the first tier; sinks go where sinks go. Where a codec takes
    /// groups of rows, what does not fill one waits.
    /// @return false if a codec cannot hold a row of some head, which then stays as it was
    [[nodiscard]] bool flush() { return flush(storage_.window); }
    [[nodiscard]] bool flush(std::size_t window) {
        std::vector<std::uint8_t> first_tier;
        bool all_fit = true;
        for (stored_head& head : heads_) {
            const std::size_t dense = head.dense_rows();
            first_tier.assign(dense > window ? dense - window : 0, 0);
            all_fit = head.encode(first_tier, storage_.num_sink_tokens) && all_fit;
        }
        return all_fit;
    }

    /// Encodes the oldest dense rows of a head; see stored_head::encode.
    /// @param tier_of  the tier of each of them, below storage().tiers.size(); not looked at for sinks
    /// @return false, with nothing changed, if a codec cannot hold a row
    /// @throws std::invalid_argument for another head, more rows than are dense, or another tier
    [[nodiscard]] bool encode(std::size_t head, std::span<const std::uint8_t> tier_of) {
        require_head(head, "encode");
        detail::require(tier_of.size() <= heads_[head].dense_rows(),
                        "kv_sequence: encode is asked for ",
                        tier_of.size(),
                        " rows; head ",
                        head,
                        " has ",
                        heads_[head].dense_rows(),
                        " dense ones");
        require_tiers(tier_of);
        return heads_[head].encode(tier_of, storage_.num_sink_tokens);
    }

    /// Stores every row of a head in the tier asked for; see stored_head::store.
    /// @param tier_of  of each row, the oldest first
    /// @return false if a codec cannot hold a row, which then stays where it was
    /// @throws std::invalid_argument for another head, number of rows, or tier
    [[nodiscard]] bool store(std::size_t head, std::span<const std::uint8_t> tier_of) {
        require_head(head, "store");
        stored_head& own = heads_[head];
        detail::require(tier_of.size() == own.rows(),
                        "kv_sequence: store is given tiers of ",
                        tier_of.size(),
                        " rows; head ",
                        head,
                        " has ",
                        own.rows());
        require_tiers(tier_of);
        return own.store(tier_of, storage_.num_sink_tokens);
    }

    /// Drops all rows of each head but the kept ones and gives their memory back. Encoded bytes move and are never decoded.
    /// @param kept  per kv head, rows by age; with 0 heads nothing changes
    /// @throws std::invalid_argument unless holds(kept)
    void evict(const selection& kept) {
        detail::require(holds(kept),
                        "kv_sequence: evict is given a selection of ",
                        kept.num_kv_heads(),
                        " kv heads; it must be one of ascending rows of the ",
                        heads_.size(),
                        " that there are");
        for (std::size_t head = 0; head < kept.num_kv_heads(); ++head) {
            heads_[head].keep(kept.kept(head));
        }
    }
    /// Whether a selection has all kv heads or none, and names rows that are there, by age, ascending, each once.
    [[nodiscard]] bool holds(const selection& kept) const noexcept {
        bool fits = kept.num_kv_heads() == 0 || kept.num_kv_heads() == heads_.size();
        for (std::size_t head = 0; fits && head < kept.num_kv_heads(); ++head) {
            const auto rows = kept.kept(head);
            fits =
                (rows.empty() || rows.back() < heads_[head].rows()) &&
                std::adjacent_find(rows.begin(), rows.end(), std::greater_equal<>{}) == rows.end();
        }
        return fits;
    }

    /// Attention of the newest tokens, whose rows are there already, over all rows; see kvcrush::attend. Of several
    /// queries, each sees its own row and all before it.
    /// @param[in]  queries  [num_q_heads, num_queries, key_dim]; the rows of all but the first are still dense
    /// @param[out] output   [num_q_heads, num_queries, value_dim], or as how.output says
    /// @throws std::invalid_argument if the shapes do not fit one another
    /// @note weights, if asked for, come store by store, not by age
    /// @note allocates where it needs more memory than the call before
    template <Executor E = serial_executor>
    void attend(const query_view& queries,
                std::span<float> output,
                const attend_options& how = {},
                E&& execute = {},
                simd::isa at_most = simd::best()) {
        attend_in(workspace_, queries, output, how, std::forward<E>(execute), at_most);
    }
    /// The same in memory that several layers share.
    template <Executor E = serial_executor>
    void attend_in(std::vector<float>& workspace,
                   const query_view& queries,
                   std::span<float> output,
                   const attend_options& how = {},
                   E&& execute = {},
                   simd::isa at_most = simd::best());

    /// Everything that is allocated for rows: codes with their metadata, key means, positions [bytes].
    [[nodiscard]] std::size_t bytes_held() const noexcept {
        std::size_t bytes = 0;
        for (const stored_head& head : heads_) {
            bytes += head.bytes_held();
        }
        return bytes;
    }
    /// Gives back what is allocated for rows that may still come.
    void shrink_to_fit() {
        for (stored_head& head : heads_) {
            head.shrink_to_fit();
        }
    }

private:
    static constexpr std::size_t last_position = (std::numeric_limits<token_index>::max)();

    void require_head(std::size_t head, const char* who) const {
        detail::require(head < heads_.size(),
                        "kv_sequence: ",
                        who,
                        " is given kv head ",
                        head,
                        "; there are ",
                        heads_.size());
    }
    void require_tiers(std::span<const std::uint8_t> tier_of) const {
        for (const std::uint8_t tier : tier_of) {
            detail::require(tier < storage_.tiers.size() || storage_.tiers.empty(),
                            "kv_sequence: a row is to go to tier ",
                            unsigned{tier},
                            "; there are ",
                            storage_.tiers.size());
        }
    }
    void require_dense(std::size_t num_queries) const {
        for (const stored_head& head : heads_) {
            detail::require(num_queries <= 1 || head.dense_rows() + 1 >= num_queries ||
                                !storage_.encodes(),
                            "kv_sequence: attend is given ",
                            num_queries,
                            " queries, but only ",
                            head.dense_rows(),
                            " of their rows are still dense");
        }
    }

    [[nodiscard]] std::span<const float> rows_of_head(std::span<const float> rows,
                                                      std::size_t head,
                                                      std::size_t count,
                                                      std::vector<float>& room) const;
    void collect_segments(simd::isa at_most);

    layer_extent extent_;
    row_storage storage_;
    std::vector<stored_head> heads_;
    std::size_t tokens_seen_ = 0;
    // What append() and attend() work in, kept from call to call.
    std::vector<token_index> positions_;
    std::vector<float> keys_;
    std::vector<float> values_;
    std::vector<row_store::kernels_of_rows> kernels_;
    std::vector<attend_segment> segments_;
    std::vector<attend_head> attend_heads_;
    std::vector<float> workspace_;
};

/// The rows of one head out of [count, heads, dim]: where they lie if there is one, gathered in `room` if there are more.
inline std::span<const float> kv_sequence::rows_of_head(std::span<const float> rows,
                                                        std::size_t head,
                                                        std::size_t count,
                                                        std::vector<float>& room) const {
    const std::size_t dim = count == 0 ? 0 : rows.size() / (count * heads_.size());
    if (count <= 1) {
        return rows.subspan(head * dim, dim);
    }
    room.resize(count * dim);
    for (std::size_t t = 0; t < count; ++t) {
        const auto row = rows.subspan((t * heads_.size() + head) * dim, dim);
        std::copy(row.begin(), row.end(), room.begin() + static_cast<std::ptrdiff_t>(t * dim));
    }
    return room;
}

inline bool kv_sequence::append(std::span<const float> keys, std::span<const float> values) {
    const std::size_t num_heads = heads_.size();
    const std::size_t key_width = num_heads * extent_.key_dim;
    const std::size_t value_width = num_heads * extent_.value_dim;
    const std::size_t count = keys.size() / key_width;
    detail::require(keys.size() == count * key_width && values.size() == count * value_width,
                    "kv_sequence: append takes ",
                    key_width,
                    " and ",
                    value_width,
                    " floats per token; it is given ",
                    keys.size(),
                    " and ",
                    values.size());
    detail::require(count <= last_position - tokens_seen_,
                    "kv_sequence: ",
                    tokens_seen_,
                    " tokens and ",
                    count,
                    " more; ",
                    last_position,
                    " at most are supported");
    positions_.resize(count);
    std::iota(positions_.begin(), positions_.end(), static_cast<token_index>(tokens_seen_));
    for (std::size_t head = 0; head < num_heads; ++head) {
        const std::span<const float> own_keys = rows_of_head(keys, head, count, keys_);
        const std::span<const float> own_values = rows_of_head(values, head, count, values_);
        if (!heads_[head].append(own_keys, own_values, positions_)) {
            while (head-- > 0) {
                heads_[head].pop_dense(count);
            }
            return false;
        }
    }
    tokens_seen_ += count;
    return true;
}

template <Executor E>
void kv_sequence::attend_in(std::vector<float>& workspace,
                            const query_view& queries,
                            std::span<float> output,
                            const attend_options& how,
                            E&& execute,
                            simd::isa at_most) {
    detail::require(queries.head_dim() == extent_.key_dim &&
                        queries.num_q_heads() % heads_.size() == 0,
                    "kv_sequence: attend is given ",
                    queries.num_q_heads(),
                    " query heads of ",
                    queries.head_dim(),
                    " channels; a multiple of ",
                    heads_.size(),
                    " heads of ",
                    extent_.key_dim,
                    " channels is needed");
    require_dense(queries.num_queries());
    collect_segments(at_most);
    const std::span<const attend_head> heads(attend_heads_);
    const std::size_t needed = attend_workspace(queries, heads, extent_.value_dim, how);
    if (workspace.size() < needed) {
        workspace.resize(needed + needed / 2);
    }
    const attend_status status = kvcrush::attend(queries,
                                                 heads,
                                                 extent_.value_dim,
                                                 output,
                                                 workspace,
                                                 how,
                                                 std::forward<E>(execute),
                                                 at_most);
    detail::require(status == attend_status::done, "kv_sequence: attend: ", describe(status));
}

inline void kv_sequence::collect_segments(simd::isa at_most) {
    // Tables refer to codecs, which every store of a kind shares.
    const std::span<const row_store> kinds = heads_.front().stores();
    kernels_.clear();
    for (const row_store& store : kinds) {
        kernels_.push_back(store.kernels(at_most));
    }
    segments_.clear();
    for (const stored_head& head : heads_) {
        const std::span<const row_store> stores = head.stores();
        for (std::size_t s = 0; s < stores.size(); ++s) {
            const auto both =
                stores[s].segments(kernels_[s], head.is_tier(s) ? head.key_mean() : nullptr);
            segments_.insert(segments_.end(), both.begin(), both.end());
        }
    }
    attend_heads_.clear();
    for (std::size_t head = 0; head < heads_.size(); ++head) {
        attend_heads_.push_back(
            std::span(segments_).subspan(head * 2 * kinds.size(), 2 * kinds.size()));
    }
}

} // namespace v0
} // namespace kvcrush
