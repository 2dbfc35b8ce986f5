// SPDX-License-Identifier: Apache-2.0
#include "conversation.hpp"

#include "error.hpp"
#include "stopwatch.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace client {

conversation::conversation(const engine& engine,
                           const kvcrush::recipe& how,
                           const context_options& options,
                           std::size_t most_added)
    : engine_(engine), options_(options), most_added_(most_added) {
    cells_ = new_context(0);
    layout_ = probe(engine, *cells_, *watch_);
    cache_ = std::make_unique<kvcrush::kv_cache>(make_cache(layout_));
    kvcrush::recipe own = how;
    own.rows.dense = cache_->how().rows.dense;
    cache_->use(std::move(own));
    watch_on();
}

std::unique_ptr<context> conversation::new_context(std::size_t rows) {
    context_options options = options_;
    options.cells = std::max(rows + most_added_, least_cells(engine_));
    return std::make_unique<context>(engine_, options, watch_.get());
}

void conversation::watch_on() {
    const std::size_t wanted = cache_->how().num_queries(seen_ + most_added_);
    watch_->begin(std::min(wanted, most_added_), cells_->cells());
}

void conversation::read(std::span<const llama_token> tokens, const logits_callback& logits) {
    for (std::size_t at = 0; at < tokens.size(); at += context::batch_size) {
        const std::span<const llama_token> part =
            tokens.subspan(at, std::min(context::batch_size, tokens.size() - at));
        cells_->decode(
            part,
            seen_,
            logits ? part.size() : 0,
            [&](std::span<const float> row, std::size_t token) { logits(row, at + token); });
        seen_ += part.size();
    }
}

eviction_report conversation::evict(const kvcrush::cache_budget& keep) {
    watch_->check();
    eviction_report report;
    const state_bytes before = cells_->state();
    report.state_bytes_before = before.size();
    const state_blob blob = parse_state(before.all(), layout_.num_caches());
    kvcrush::kv_cache next = *cache_;
    if (next.tokens_seen() < seen_) {
        take_rows(next, blob, layout_, *watch_);
    }
    const lab::stopwatch selecting;
    const std::vector<kvcrush::layer_choice> choice = next.choose({.keep = keep});
    report.select_ms = selecting.milliseconds();

    const lab::stopwatch rewriting;
    state_draft draft = client::evict(blob, layout_, choice);
    report.rows = choice.front().kept.kept(0).size();
    if (next.apply(choice).heads_not_stored > 0) {
        lab::fail("the cache holds rows that the codecs of the policy cannot store");
    }
    if (next.how().rows.encodes()) {
        write_rows(next, layout_, draft);
    }
    report.rewrite_ms = rewriting.milliseconds();
    report.state_bytes = draft.bytes.size();

    const lab::stopwatch moving;
    std::size_t longest = report.rows;
    for (std::size_t c = 1; c < blob.caches.size(); ++c) {
        longest = std::max(longest, blob.caches[c].num_cells());
    }
    std::unique_ptr<context> fresh = new_context(longest);
    if (!fresh->restore(draft.bytes.all())) {
        lab::fail("llama.cpp does not take the state of ", report.rows, " cells");
    }
    report.move_ms = moving.milliseconds();
    cells_ = std::move(fresh);
    *cache_ = std::move(next);
    watch_on();
    return report;
}

} // namespace client
