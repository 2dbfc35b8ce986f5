// SPDX-License-Identifier: Apache-2.0
/// The client on the real model: rows that move must change nothing, and a hostile state must change nothing either.
#include <kvcrush/core/random.hpp>

#include "conversation.hpp"
#include "error.hpp"
#include "evicting_cache.hpp"
#include "eviction_run.hpp"
#include "fidelity.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

namespace client {
namespace {

constexpr std::size_t prompt_tokens = 384;
constexpr std::size_t text_tokens = 33;

std::string prose() {
    std::ifstream file(KVCRUSH_PROSE);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// Each head and layer with an order of its own.
kvcrush::selection shuffled(std::size_t heads, std::size_t rows, std::uint64_t seed) {
    kvcrush::selection kept;
    kept.reserve(heads, heads * rows);
    for (std::size_t head = 0; head < heads; ++head) {
        const std::span<kvcrush::token_index> own = kept.extend(rows);
        std::iota(own.begin(), own.end(), kvcrush::token_index{0});
        for (std::size_t i = rows; i > 1; --i) {
            std::swap(own[i - 1], own[kvcrush::random_bits(seed, head, i) % i]);
        }
        kept.end_head();
    }
    return kept;
}

std::vector<kvcrush::layer_choice> all_rows(const model_layout& layout, std::size_t rows) {
    std::vector<kvcrush::layer_choice> choice(layout.layers.size());
    for (kvcrush::layer_choice& layer : choice) {
        layer.kept.reserve(layout.shape.num_kv_heads, layout.shape.num_kv_heads * rows);
        for (std::size_t head = 0; head < layout.shape.num_kv_heads; ++head) {
            layer.kept.extend_range(0, rows);
            layer.kept.end_head();
        }
    }
    return choice;
}

class LlamaClient : public testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        const char* const path = std::getenv(GetParam());
        if (path == nullptr || *path == '\0') {
            GTEST_SKIP() << GetParam() << " names no model";
        }
        engine_ = std::make_unique<engine>(path);
        tokens_ = engine_->tokens_of(prose());
        tokens_.resize(prompt_tokens + text_tokens);
    }

    [[nodiscard]] std::span<const llama_token> prompt() const {
        return std::span(tokens_).first(prompt_tokens);
    }
    [[nodiscard]] std::span<const llama_token> text() const {
        return std::span(tokens_).subspan(prompt_tokens);
    }
    [[nodiscard]] std::unique_ptr<context> make(ggml_type type,
                                                query_watch* watch = nullptr) const {
        context_options options{.cells = std::max(tokens_.size(), least_cells(*engine_)),
                                .type = type};
        return std::make_unique<context>(*engine_, options, watch);
    }
    void read(context& cells, std::size_t at_once = context::batch_size) const {
        for (std::size_t at = 0; at < prompt().size(); at += at_once) {
            cells.decode(prompt().subspan(at, std::min(at_once, prompt().size() - at)), at);
        }
    }
    [[nodiscard]] lab::matrix after(context& cells) const {
        return force(cells, *engine_, text(), prompt_tokens).logits;
    }
    [[nodiscard]] lab::matrix after(std::span<const std::byte> state, ggml_type type) const {
        const std::unique_ptr<context> cells = make(type);
        EXPECT_TRUE(cells->restore(state));
        return after(*cells);
    }
    /// Mean KLD of predictions to those of `goal`.
    [[nodiscard]] double divergence(const lab::matrix& goal, lab::matrix logits) const {
        const lab::reference_predictions reference(goal, {text().begin() + 1, text().end()});
        return lab::compare(reference, logits).kld_mean;
    }

    std::unique_ptr<engine> engine_;
    std::vector<llama_token> tokens_;
};

bool same(const lab::matrix& a, const lab::matrix& b) {
    return a.rows() == b.rows() && std::equal(a.data(), a.data() + a.rows() * a.cols(), b.data());
}

TEST_P(LlamaClient, KeepingAllRowsGivesTheSameBytesAndLogits) {
    for (const ggml_type type : {GGML_TYPE_F16, GGML_TYPE_Q8_0}) {
        query_watch watch;
        const auto cells = make(type, &watch);
        const model_layout layout = probe(*engine_, *cells, watch);
        read(*cells);
        const state_bytes state = cells->state();
        const state_blob blob = parse_state(state.all(), layout.num_caches());
        const state_draft draft = evict(blob, layout, all_rows(layout, prompt_tokens));
        ASSERT_TRUE(std::ranges::equal(draft.bytes.all(), state.all()));
        EXPECT_TRUE(same(after(*cells), after(draft.bytes.all(), type)));
    }
}

TEST_P(LlamaClient, TheOrderOfRowsInALayerAndHeadDoesNotMatter) {
    query_watch watch;
    const auto cells = make(GGML_TYPE_F16, &watch);
    const model_layout layout = probe(*engine_, *cells, watch);
    read(*cells);
    const state_bytes state = cells->state();
    const lab::matrix goal = after(*cells);
    // llama.cpp's own noise: the same prompt in batches of another size.
    double floor = 0.0;
    for (const std::size_t at_once : {std::size_t{32}, std::size_t{96}}) {
        const auto other = make(GGML_TYPE_F16);
        read(*other, at_once);
        floor = std::max(floor, divergence(goal, after(*other)));
    }
    const state_blob blob = parse_state(state.all(), layout.num_caches());
    std::vector<kvcrush::layer_choice> choice(layout.layers.size());
    for (std::size_t l = 0; l < choice.size(); ++l) {
        choice[l].kept = shuffled(layout.shape.num_kv_heads, prompt_tokens, l + 1);
    }
    const state_draft draft = evict(blob, layout, choice);
    ASSERT_FALSE(std::ranges::equal(draft.bytes.all(), state.all()));
    const double moved = divergence(goal, after(draft.bytes.all(), GGML_TYPE_F16));
    RecordProperty("floor", std::to_string(floor));
    RecordProperty("moved", std::to_string(moved));
    EXPECT_LE(moved, 3.0 * floor);
}

TEST_P(LlamaClient, WatchedQueriesAndDecodedRowsAreWhatAttentionSees) {
    // Policies that look at queries choose alike whatever the type of the cells: rotated rows meet rotated queries.
    std::vector<std::vector<float>> scores;
    for (const ggml_type type : {GGML_TYPE_F16, GGML_TYPE_Q8_0}) {
        query_watch watch;
        const auto cells = make(type, &watch);
        const model_layout layout = probe(*engine_, *cells, watch);
        EXPECT_EQ(layout.rotated_key_channels > 0, type == GGML_TYPE_Q8_0);
        watch.begin(32, cells->cells());
        read(*cells);
        const state_bytes state = cells->state();
        kvcrush::kv_cache cache = make_cache(layout);
        cache.remember_queries(32);
        take_rows(cache, parse_state(state.all(), layout.num_caches()), layout, watch);
        cache.use(lab::parse_policy("snapkv(window=32)").how);
        scores.push_back(cache.scores(0));
    }
    double together = 0.0;
    double first = 0.0;
    double second = 0.0;
    for (std::size_t i = 0; i < scores[0].size(); ++i) {
        if (std::isfinite(scores[0][i]) && std::isfinite(scores[1][i])) {
            together += static_cast<double>(scores[0][i]) * static_cast<double>(scores[1][i]);
            first += static_cast<double>(scores[0][i]) * static_cast<double>(scores[0][i]);
            second += static_cast<double>(scores[1][i]) * static_cast<double>(scores[1][i]);
        }
    }
    EXPECT_GT(together / std::sqrt(first * second), 0.99);
}

/// One change of a state: a number, a few bits, its end.
std::vector<std::byte> mutated(std::span<const std::byte> state, std::uint64_t seed) {
    std::vector<std::byte> result(state.begin(), state.end());
    const auto draw = [&](std::uint64_t what, std::uint64_t below) {
        return kvcrush::random_bits(seed, what, 0) % below;
    };
    // Half of them where the numbers are, not the rows.
    const std::size_t reach =
        draw(1, 2) == 0 ? std::min<std::size_t>(result.size(), 16 + 12 * 24 + 24) : result.size();
    const std::size_t at = draw(2, reach);
    switch (draw(3, 4)) {
    case 0: result[at] ^= static_cast<std::byte>(1U << draw(4, 8)); break;
    case 1: {
        const std::uint64_t extremes[] = {
            0, 1, ~std::uint64_t{0}, std::uint64_t{1} << 31U, 0x7fffffff};
        const std::uint64_t value = extremes[draw(4, 5)];
        std::memcpy(
            result.data() + at, &value, std::min(sizeof(std::uint32_t), result.size() - at));
        break;
    }
    case 2: result.resize(at); break;
    default:
        result.insert(
            result.begin() + static_cast<std::ptrdiff_t>(at), 1 + draw(4, 16), std::byte{0x5A});
        break;
    }
    return result;
}

TEST_P(LlamaClient, AHostileStateIsAnErrorAndTheContextWhatItWas) {
    query_watch watch;
    const auto cells = make(GGML_TYPE_F16, &watch);
    const model_layout layout = probe(*engine_, *cells, watch);
    constexpr std::size_t few = 24;
    cells->decode(prompt().first(few), 0);
    const state_bytes state = cells->state();
    const auto target = make(GGML_TYPE_F16);
    ASSERT_TRUE(target->restore(state.all())); // it is in use
    std::size_t refused = 0;
    std::size_t taken = 0;
    for (std::uint64_t seed = 0; seed < 2000; ++seed) {
        const std::vector<std::byte> hostile = mutated(state.all(), seed);
        try {
            const state_blob blob = parse_state(hostile, layout.num_caches());
            kvcrush::kv_cache cache = make_cache(layout);
            take_rows(cache, blob, layout, watch);
            const std::size_t kept = blob.caches.front().num_cells() / 2;
            const state_draft draft = evict(blob, layout, all_rows(layout, kept));
            if (target->restore(draft.bytes.all())) {
                ++taken;
                ASSERT_TRUE(target->restore(state.all()));
            }
        } catch (const std::invalid_argument&) {
            ++refused;
        }
        if (seed % 8 == 0) {
            ASSERT_TRUE(std::ranges::equal(target->state().all(), state.all())) << seed;
        }
    }
    EXPECT_FALSE(target->restore(std::span(state.all()).first(state.size() / 2)));
    ASSERT_TRUE(std::ranges::equal(target->state().all(), state.all()));
    EXPECT_GT(refused, 500U);
    EXPECT_GT(taken, 100U);
    ASSERT_TRUE(std::ranges::equal(cells->state().all(), state.all()));
    const auto fresh = make(GGML_TYPE_F16);
    ASSERT_TRUE(fresh->restore(state.all()));
    EXPECT_TRUE(same(force(*cells, *engine_, text(), few).logits,
                     force(*fresh, *engine_, text(), few).logits));
}

TEST_P(LlamaClient, RoundsOfEvictionKeepTruePositions) {
    const kvcrush::recipe how = lab::parse_policy("snapkv(window=32)").how;
    conversation talk(*engine_, how, {}, 192);
    const auto keep = kvcrush::cache_budget::tokens(96);
    for (std::size_t round = 0; round < 2; ++round) {
        talk.read(prompt().subspan(round * 192, 192));
        const eviction_report report = talk.evict(keep);
        EXPECT_EQ(report.rows, 96U);
        EXPECT_LT(report.state_bytes, report.state_bytes_before);
        EXPECT_EQ(talk.cache().tokens_seen(), (round + 1) * 192);
    }
    // The first tokens of the text are still there after two evictions, and the newest are the newest.
    for (const kvcrush::stored_head& head : talk.cache().layer(0).heads()) {
        const auto ages = head.by_age();
        EXPECT_EQ(ages.front().position, 0U);
        EXPECT_EQ(ages.back().position, prompt_tokens - 1);
    }
    // What the next evicted state holds are the rows of the cache, cell by cell.
    const state_bytes state = talk.cells().state();
    const state_blob blob = parse_state(state.all(), talk.layout().num_caches());
    EXPECT_EQ(blob.caches.front().positions.back(), static_cast<std::int32_t>(prompt_tokens) - 1);
    EXPECT_EQ(blob.caches.front().num_cells(), 96U);
    state_draft same_rows = evict(blob, talk.layout(), all_rows(talk.layout(), 96));
    write_rows(talk.cache(), talk.layout(), same_rows);
    EXPECT_TRUE(std::ranges::equal(same_rows.bytes.all(), state.all()));
    // And it goes on.
    const lab::matrix logits = force(talk.cells(), *engine_, text(), prompt_tokens).logits;
    EXPECT_TRUE(std::all_of(logits.data(),
                            logits.data() + logits.rows() * logits.cols(),
                            [](float logit) { return std::isfinite(logit); }));
}

TEST_P(LlamaClient, AnEvictionThatFailsLeavesTheConversation) {
    conversation talk(*engine_, lab::parse_policy("snapkv(window=32)").how, {}, prompt_tokens);
    talk.read(prompt());
    const state_bytes before = talk.cells().state();
    EXPECT_THROW(talk.evict(kvcrush::cache_budget::tokens(0)), std::invalid_argument);
    EXPECT_TRUE(std::ranges::equal(talk.cells().state().all(), before.all()));
    EXPECT_EQ(talk.evict(kvcrush::cache_budget::tokens(64)).rows, 64U);
}

INSTANTIATE_TEST_SUITE_P(Models,
                         LlamaClient,
                         testing::Values("KVCRUSH_MODEL", "KVCRUSH_GEMMA"),
                         [](const auto& name) {
                             return std::string(name.param) == "KVCRUSH_GEMMA" ? "gemma" : "smollm";
                         });

} // namespace
} // namespace client
