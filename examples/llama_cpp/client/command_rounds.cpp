// SPDX-License-Identifier: Apache-2.0
#include "client_options.hpp"
#include "commands.hpp"
#include "conversation.hpp"
#include "error.hpp"
#include "fidelity.hpp"
#include "files.hpp"
#include "text_table.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace client {
namespace {

struct rounds_options {
    client_options common;
    std::size_t round_tokens = 512;
    std::size_t rounds = 4;
};

/// One round: how well its tokens were predicted, and what was evicted behind it.
struct round_result {
    std::size_t tokens_seen = 0;
    std::size_t full_bytes = 0;
    lab::fidelity quality;
    eviction_report eviction;
};

/// Predictions of every token of a chunk but the first, by what `read` does.
template <typename Read>
[[nodiscard]] lab::matrix predictions(std::size_t tokens, std::size_t words, const Read& read) {
    lab::matrix logits(tokens - 1, words);
    read([&](std::span<const float> row, std::size_t token) {
        if (token + 1 < tokens) {
            std::copy(row.begin(), row.end(), logits.row(token).begin());
        }
    });
    return logits;
}

[[nodiscard]] std::vector<round_result> talk(const rounds_options& options,
                                             const lab::policy& how,
                                             double ratio,
                                             const engine& engine,
                                             const std::vector<llama_token>& tokens) {
    context_options cells = options.common.cells();
    conversation evicted(engine, how.how, cells, options.round_tokens);
    conversation full(engine, {}, cells, tokens.size());
    std::vector<round_result> results;
    for (std::size_t round = 0; round < options.rounds; ++round) {
        const auto chunk =
            std::span(tokens).subspan(round * options.round_tokens, options.round_tokens);
        lab::matrix goal =
            predictions(chunk.size(), engine.num_words(), [&](const logits_callback& take) {
                full.read(chunk, take);
            });
        const lab::reference_predictions reference(std::move(goal),
                                                   {chunk.begin() + 1, chunk.end()});
        lab::matrix logits =
            predictions(chunk.size(), engine.num_words(), [&](const logits_callback& take) {
                evicted.read(chunk, take);
            });
        round_result result;
        result.tokens_seen = evicted.tokens_seen();
        result.quality = lab::compare(reference, logits);
        result.full_bytes = full.cells().state_size();
        result.eviction = evicted.evict(how.at(ratio));
        results.push_back(result);
    }
    return results;
}

[[nodiscard]] std::string table_of(const std::vector<round_result>& results) {
    constexpr double mib = 1024.0 * 1024.0;
    std::vector<lab::table_line> lines{{"round",
                                        "seen",
                                        "KLD",
                                        "top-1 %",
                                        "rows",
                                        "MiB before",
                                        "MiB",
                                        "full MiB",
                                        "select ms",
                                        "rewrite ms",
                                        "move ms"}};
    for (const round_result& r : results) {
        const auto in_mib = [](std::size_t bytes) {
            return fmt::format("{:.2f}", static_cast<double>(bytes) / mib);
        };
        lines.push_back({fmt::format("{}", lines.size()),
                         fmt::format("{}", r.tokens_seen),
                         fmt::format("{:.4f}", r.quality.kld_mean),
                         fmt::format("{:.1f}", 100.0 * r.quality.top1_agreement),
                         fmt::format("{}", r.eviction.rows),
                         in_mib(r.eviction.state_bytes_before),
                         in_mib(r.eviction.state_bytes),
                         in_mib(r.full_bytes),
                         fmt::format("{:.1f}", r.eviction.select_ms),
                         fmt::format("{:.1f}", r.eviction.rewrite_ms),
                         fmt::format("{:.1f}", r.eviction.move_ms)});
    }
    return lab::aligned(lines, 0) + "\nKLD (nats), top-1: predictions of the round's tokens "
                                    "against those of the cache that keeps everything; the first "
                                    "round\nis read before anything is evicted. MiB: llama.cpp's "
                                    "state before and after the eviction behind the round.\n";
}

[[nodiscard]] nlohmann::json json_of(const std::vector<round_result>& results) {
    nlohmann::json list = nlohmann::json::array();
    for (const round_result& r : results) {
        list.push_back({{"tokens_seen", r.tokens_seen},
                        {"rows", r.eviction.rows},
                        {"state_bytes_before", r.eviction.state_bytes_before},
                        {"state_bytes", r.eviction.state_bytes},
                        {"state_bytes_full", r.full_bytes},
                        {"kld_mean", r.quality.kld_mean},
                        {"kld_p99", r.quality.kld_p99},
                        {"top1_agreement", r.quality.top1_agreement},
                        {"select_ms", r.eviction.select_ms},
                        {"rewrite_ms", r.eviction.rewrite_ms},
                        {"move_ms", r.eviction.move_ms}});
    }
    return list;
}

/// One policy at one ratio, which holds what it must keep after the first round already.
void check(const rounds_options& options, const lab::experiment& plan) {
    if (plan.policies.size() != 1 || plan.keep_ratios.size() != 1) {
        lab::fail("rounds takes one --policy and one --keep-ratio; ",
                  plan.policies.size(),
                  " and ",
                  plan.keep_ratios.size(),
                  " are given");
    }
    constexpr std::size_t most = 1U << 20U;
    if (options.rounds > most / options.round_tokens) {
        lab::fail("--rounds is ",
                  options.rounds,
                  "; with ",
                  options.round_tokens,
                  " tokens each, allowed: up to ",
                  most / options.round_tokens);
    }
}

int rounds_command(const rounds_options& options) {
    std::string notes;
    const lab::experiment plan = options.common.parse(notes);
    check(options, plan);
    const std::string text = lab::read_file(options.common.text);
    const std::unique_ptr<lab::output_file> json =
        options.common.common.open_json({options.common.text});
    const engine engine(options.common.common.model);
    const std::vector<llama_token> tokens =
        options.common.read_tokens(engine, text, options.rounds * options.round_tokens);
    const lab::policy& how = plan.policies.front();
    const double ratio = how.ratios(plan.keep_ratios).front();
    fmt::print("llama.cpp, cells of {}: {} rounds of {} tokens, {} at keep ratio {:.3g} of all "
               "tokens after each\n{}\n",
               options.common.cell_type,
               options.rounds,
               options.round_tokens,
               how.text,
               ratio,
               notes);
    const std::vector<round_result> results = talk(options, how, ratio, engine, tokens);
    fmt::print("{}", table_of(results));
    if (json != nullptr) {
        lab::experiment_options said = options.common.common;
        said.cache = options.common.cell_type;
        lab::write_document(said,
                            {{"round_tokens", fmt::format("{}", options.round_tokens)},
                             {"threads", fmt::format("{}", options.common.threads)}},
                            {{"engine", "llama.cpp"}, {"rounds", json_of(results)}},
                            *json);
    }
    return 0;
}

} // namespace

void add_rounds(CLI::App& app, action& chosen) {
    auto options = std::make_shared<rounds_options>();
    options->common.common.policies = "snapkv(window=64)";
    options->common.common.keep_ratios = "0.25";
    CLI::App* command = app.add_subcommand(
        "rounds", "Evict again and again from the cache of a text that goes on.");
    command->footer(
        "Each round reads --round-tokens tokens and evicts, on top of what was evicted before. "
        "--keep-ratio is a share of\n"
        "all tokens seen. Another context keeps everything: what it predicts is the goal.\n"
        "  kvcrush-llama rounds --model model.gguf --text book.txt --round-tokens 512 --rounds 4");
    options->common.add_to(*command);
    lab::add_token_option(
        *command, "--round-tokens", options->round_tokens, 2, "tokens to read in a round");
    command->add_option("--rounds", options->rounds, "how many rounds")
        ->type_name("N")
        ->check(CLI::Range(1, 1 << 20, "from 1 to 1048576"))
        ->capture_default_str();
    command->callback(
        [options, &chosen] { chosen = [options] { return rounds_command(*options); }; });
}

} // namespace client
