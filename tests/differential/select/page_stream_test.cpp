// SPDX-License-Identifier: Apache-2.0
// A stream of pages keeps what page_selector keeps of the whole sequence, after every append.
#include <kvcrush/grouping/farthest.hpp>
#include <kvcrush/select/page_stream.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

/// [heads, tokens] of scores with ties and NaN, of which prefixes are looked at.
class score_table {
public:
    score_table(std::size_t heads, std::size_t tokens, std::uint64_t seed)
        : heads_(heads), tokens_(tokens), scores_(heads * tokens) {
        for (std::size_t i = 0; i < scores_.size(); ++i) {
            const std::uint64_t bits = random_bits(seed, 11, i);
            scores_[i] = bits % 53 == 0 ? std::numeric_limits<float>::quiet_NaN()
                                        : static_cast<float>((bits >> 8) % 1000) / 7.0F;
        }
    }
    /// Tokens [begin, end) of every head, close together.
    [[nodiscard]] std::vector<float> part(std::size_t begin, std::size_t end) const {
        std::vector<float> out;
        for (std::size_t h = 0; h < heads_; ++h) {
            out.insert(out.end(),
                       scores_.begin() + static_cast<std::ptrdiff_t>(h * tokens_ + begin),
                       scores_.begin() + static_cast<std::ptrdiff_t>(h * tokens_ + end));
        }
        return out;
    }

private:
    std::size_t heads_;
    std::size_t tokens_;
    std::vector<float> scores_;
};

template <typename Picker>
std::vector<std::uint32_t> pages_of_the_whole(const page_selector<Picker>& settings,
                                              const std::vector<float>& scores,
                                              std::size_t heads,
                                              std::size_t recent,
                                              std::size_t tokens_for_pages) {
    const std::size_t length = scores.size() / heads;
    const areas area({0, recent}, length);
    const std::size_t pages = area.num_middle() / settings.page_size;
    const std::size_t behind = area.num_middle() - pages * settings.page_size;
    const std::size_t budget = (std::min)(tokens_for_pages, pages * settings.page_size);
    const std::vector<std::size_t> counts(heads, area.num_protected() + behind + budget);
    selection out;
    out.reserve(heads, heads * length);
    test::owned_scratch memory(settings.scratch_bytes({{heads, length, 1, 1}, heads}));
    const const_head_scores view(scores, heads, length);
    settings.select({view, view, area, counts, memory.get()}, out);
    std::vector<std::uint32_t> kept;
    for (const token_index token : out.kept(0)) {
        if (token % settings.page_size == 0 && token < pages * settings.page_size) {
            kept.push_back(static_cast<std::uint32_t>(token / settings.page_size));
        }
    }
    return kept;
}

template <typename Picker>
void follow(const page_selector<Picker>& settings,
            std::size_t heads,
            std::size_t recent,
            std::uint64_t seed) {
    constexpr std::size_t longest = 700;
    const score_table table(heads, longest, seed);
    page_stream<Picker> stream(settings);
    stream.plan(heads, longest, recent);
    std::size_t length = 50 * (seed % 7);
    const std::vector<float> prompt = table.part(0, length);
    stream.start(const_head_scores(prompt, heads, length));
    while (true) {
        ASSERT_EQ(stream.num_tokens(), length);
        for (const std::size_t tokens : std::initializer_list<std::size_t>{0, 40, 200, 10000}) {
            ASSERT_EQ(test::list(stream.select(tokens)),
                      pages_of_the_whole(settings, table.part(0, length), heads, recent, tokens))
                << length << " tokens of " << heads << " heads, pages of " << settings.page_size
                << ", " << recent << " recent, budget " << tokens << ", seed " << seed;
        }
        const std::size_t more =
            (std::min)(std::size_t{1} + random_bits(seed, 12, length) % 90, longest - length);
        if (more == 0) {
            break;
        }
        const std::vector<float> scores = table.part(length, length + more);
        stream.append(const_head_scores(scores, heads, more));
        length += more;
    }
}

TEST(PageStream, KeepsWhatThePageSelectorKeepsOfTheWhole) {
    std::uint64_t seed = 0;
    for (const std::size_t heads : std::initializer_list<std::size_t>{1, 3, 8, 32, 70}) {
        for (const std::size_t page_size : std::initializer_list<std::size_t>{1, 7, 16, 32}) {
            for (const anchor_kind kind :
                 {anchor_kind::zeros, anchor_kind::alternate, anchor_kind::random}) {
                ++seed;
                const std::size_t recent = seed % 4 == 0 ? 0 : 13 * (seed % 5);
                follow<linspace_picker>({.page_size = page_size,
                                         .share = 0.1 * static_cast<double>(seed % 11),
                                         .table = page_table::shared,
                                         .quantile = seed % 2 == 0 ? 0.5 : 0.3,
                                         .anchor = {.kind = kind, .seed = seed}},
                                        heads,
                                        recent,
                                        seed);
            }
            follow<farthest_picker>(
                {.page_size = page_size, .table = page_table::shared}, heads, 32, seed);
        }
    }
}

TEST(PageStream, ARefusedPlanLeavesTheOldOne) {
    page_stream<> stream({.page_size = 16, .table = page_table::shared});
    stream.plan(2, 64, 0);
    EXPECT_THROW(stream.plan(64, std::size_t{1} << 33, 0), std::invalid_argument);
    const std::vector<float> scores = test::random_scores(2 * 64, 3);
    stream.start(const_head_scores(scores, 2, 64));
    EXPECT_EQ(stream.select(32).size(), 2U);
}

TEST(PageStream, RefusesSettingsItCannotFollow) {
    EXPECT_THROW(page_stream<>(page_selector<>{}), std::invalid_argument) << "a table per head";
    EXPECT_THROW(page_stream<>({.page_size = 0, .table = page_table::shared}),
                 std::invalid_argument);
    EXPECT_THROW(page_stream<>({.table = page_table::shared, .bits = page_bits::summed}),
                 std::invalid_argument);
    EXPECT_THROW(
        page_stream<>({.table = page_table::shared, .anchor = {.kind = anchor_kind::mean}}),
        std::invalid_argument);
    page_stream<> stream({.page_size = 64, .table = page_table::shared});
    EXPECT_THROW(stream.plan(65, 1000, 32), std::invalid_argument) << "4160 bits a page";
    EXPECT_THROW(stream.plan(0, 1000, 32), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
