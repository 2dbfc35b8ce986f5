// SPDX-License-Identifier: Apache-2.0
// select/append: one decode step after a page was appended, against a selection from all scores.
#include <kvcrush/core/random.hpp>
#include <kvcrush/select/page_selector.hpp>
#include <kvcrush/select/page_stream.hpp>

#include "bars.hpp"
#include "huge_buffer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

namespace kvcrush::bench {
namespace {

constexpr std::size_t num_heads = 32;
constexpr std::size_t page_size = 16;
constexpr std::size_t num_recent = 128;

const page_selector<> settings{.page_size = page_size, .table = page_table::shared};

/// Scores of [heads, tokens] and the selection from all of them.
class whole_sequence {
public:
    explicit whole_sequence(std::size_t tokens)
        : tokens_(tokens),
          scores_(num_heads * tokens),
          room_(settings.scratch_bytes({{num_heads, tokens, 128, 128}, num_heads})),
          counts_(num_heads, tokens / 4),
          area_({0, num_recent}, tokens) {
        for (std::size_t i = 0; i < scores_.size(); ++i) {
            const float x = random_unit(21, 0, i);
            scores_.data()[i] = x * x * x;
        }
        kept_.reserve(num_heads, num_heads * counts_[0]);
    }

    [[nodiscard]] const_head_scores scores() const noexcept {
        return {scores_.span(), num_heads, tokens_};
    }
    const selection& select() {
        settings.select({scores(), scores(), area_, counts_, scratch(room_.span())}, kept_);
        return kept_;
    }
    /// Tokens that are left for competing pages.
    [[nodiscard]] std::size_t page_budget() const noexcept {
        const std::size_t behind = area_.num_middle() % page_size;
        return counts_[0] - area_.num_protected() - behind;
    }

private:
    std::size_t tokens_;
    huge_buffer<float> scores_;
    huge_buffer<std::byte> room_;
    std::vector<std::size_t> counts_;
    areas area_;
    selection kept_;
};

/// One page of new tokens, another one at each step.
class new_pages {
public:
    new_pages() : scores_(num_heads * page_size * count) {
        for (std::size_t i = 0; i < scores_.size(); ++i) {
            const float x = random_unit(22, 0, i);
            scores_[i] = x * x * x;
        }
    }
    [[nodiscard]] const_head_scores at(std::size_t turn) const noexcept {
        return {
            std::span(scores_).subspan(turn % count * num_heads * page_size, num_heads * page_size),
            num_heads,
            page_size};
    }

private:
    static constexpr std::size_t count = 2048;
    std::vector<float> scores_;
};

} // namespace

void measure_stream(session& run) {
    constexpr std::size_t tokens = 131072;
    row one{.name = fmt::format("select/append/tokens:{}", tokens)};
    one.variant = "step";
    one.bits = num_heads * page_size;
    one.bar = 0.02;
    one.side = better::lower;
    run.progress(one.name);

    whole_sequence whole(tokens);
    const new_pages pages;
    page_stream<> stream(settings);
    constexpr std::size_t most = 2 * tokens;
    stream.plan(num_heads, most, num_recent);
    const auto start = [&] { stream.start(whole.scores()); };
    start();
    // The same pages, or the comparison would be about two different things.
    const std::vector<std::uint32_t> streamed = [&] {
        const auto kept = stream.select(whole.page_budget());
        return std::vector<std::uint32_t>(kept.begin(), kept.end());
    }();
    bool agree = true;
    const auto all = whole.select().kept(0);
    for (const std::uint32_t page : streamed) {
        agree = agree && std::binary_search(
                             all.begin(), all.end(), static_cast<token_index>(page * page_size));
    }
    agree = agree && all.size() == streamed.size() * page_size + num_recent +
                                       (tokens - num_recent) % page_size;

    round_robin turns(run.limits);
    turns.add("whole", [&](std::size_t) { whole.select(); });
    turns.add("step", [&](std::size_t turn) {
        if (stream.num_tokens() + page_size > most) {
            start();
        }
        stream.append(pages.at(turn));
        static_cast<void>(stream.select(whole.page_budget()));
    });
    const timings times = turns.run();
    set_times(one, times, tokens);
    one.value = times.ratio("step", "whole");
    one.spread = times.spread("step", "whole");
    one.baseline = fmt::format(
        "a selection from all scores, {:.0f} us; the step {:.1f} us; {} heads, pages of {}",
        times.median("whole") / 1000.0,
        times.median("step") / 1000.0,
        num_heads,
        page_size);
    if (agree) {
        run.rows.add(std::move(one));
    } else {
        run.rows.add_void(std::move(one),
                          "the stream keeps other pages than the selection from all scores");
    }
}

} // namespace kvcrush::bench
