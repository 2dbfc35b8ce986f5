// SPDX-License-Identifier: Apache-2.0
#include "client_options.hpp"
#include "commands.hpp"
#include "error.hpp"
#include "eviction_run.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "text_table.hpp"
#include "window.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <memory>
#include <string>

namespace client {
namespace {

struct run_options {
    client_options common;
    std::size_t context = 2048;
};

[[nodiscard]] eviction_plan plan_of(const run_options& options, lab::experiment plan) {
    eviction_plan result;
    result.policies = std::move(plan.policies);
    result.keep_ratios = std::move(plan.keep_ratios);
    result.cells = options.common.cells();
    result.name = std::filesystem::path(options.common.text).filename().string();
    return result;
}

/// What llama.cpp holds and needs, beside the table that the lab prints of all engines.
[[nodiscard]] std::string engine_table(const eviction_results& results) {
    std::vector<lab::table_line> lines{{"policy",
                                        "keep",
                                        "state bytes",
                                        "of full",
                                        "decode ms",
                                        "full ms",
                                        "times faster",
                                        "rewrite ms",
                                        "restore ms"}};
    for (std::size_t i = 0; i < results.costs.size(); ++i) {
        const engine_cost& cost = results.costs[i];
        const lab::measurement& m = results.measurements[i];
        lines.push_back({m.policy,
                         fmt::format("{:.3g}", m.keep_ratio),
                         fmt::format("{}", cost.state_bytes),
                         fmt::format("{:.4f}",
                                     static_cast<double>(cost.state_bytes) /
                                         static_cast<double>(results.full_bytes)),
                         fmt::format("{:.2f}", cost.decode_cpu_ms),
                         fmt::format("{:.2f}", cost.full_cpu_ms),
                         fmt::format("{:.2f}", cost.full_cpu_ms / cost.decode_cpu_ms),
                         fmt::format("{:.1f}", m.compact_ms),
                         fmt::format("{:.1f}", cost.restore_ms)});
    }
    return "\nWhat llama.cpp holds and needs:\n" + lab::aligned(lines, 1) +
           fmt::format("\ndecode, full: CPU ms of a token on this cache and on the full one, taken "
                       "in turns, medians. "
                       "rewrite: the state\nof all tokens checked, and written anew with the kept "
                       "rows (llama.cpp takes {:.0f} "
                       "ms to hand it over). restore: into\na new context of its size.\n",
                       results.read_ms);
}

[[nodiscard]] nlohmann::json json_of_engine(const eviction_results& results) {
    nlohmann::json list = nlohmann::json::array();
    for (std::size_t i = 0; i < results.costs.size(); ++i) {
        const engine_cost& cost = results.costs[i];
        list.push_back({{"policy", results.measurements[i].policy},
                        {"keep_ratio", results.measurements[i].keep_ratio},
                        {"state_bytes", cost.state_bytes},
                        {"state_bytes_full", results.full_bytes},
                        {"decode_cpu_ms", cost.decode_cpu_ms},
                        {"decode_cpu_ms_full", cost.full_cpu_ms},
                        {"rewrite_ms", results.measurements[i].compact_ms},
                        {"restore_ms", cost.restore_ms}});
    }
    return list;
}

void write_json(const run_options& options,
                const eviction_results& results,
                lab::output_file& json) {
    lab::experiment_options said = options.common.common;
    said.cache = options.common.cell_type;
    lab::write_document(said,
                        {{"text", results.measurements.front().name},
                         {"context", fmt::format("{}", options.context)},
                         {"threads", fmt::format("{}", options.common.threads)}},
                        {{"engine", "llama.cpp"},
                         {"llama_cpp", json_of_engine(results)},
                         {"results", lab::json_of(results.measurements, "run")}},
                        json);
}

int run_command(const run_options& options) {
    std::string notes;
    eviction_plan plan = plan_of(options, options.common.parse(notes));
    const std::string text = lab::read_file(options.common.text);
    const std::unique_ptr<lab::output_file> json =
        options.common.common.open_json({options.common.text});
    const engine engine(options.common.common.model);
    const std::vector<llama_token> tokens =
        options.common.read_tokens(engine, text, options.context + lab::continuation_tokens);
    const auto cut = tokens.begin() + static_cast<std::ptrdiff_t>(options.context);
    plan.context.assign(tokens.begin(), cut);
    plan.continuation.assign(cut, tokens.end());
    fmt::print("llama.cpp, cells of {}, {} thread{}: {} tokens of context, {} tokens predicted on "
               "each cache\n{}\n",
               options.common.cell_type,
               options.common.threads,
               options.common.threads == 1 ? "" : "s",
               options.context,
               lab::continuation_tokens - 1,
               notes);
    eviction_results results;
    {
        lab::progress_bar bar("measuring");
        results = run(plan, engine, [&](double done, double total) { bar.show(done, total); });
    }
    fmt::print("{}", lab::table_of(results.measurements));
    fmt::print("{}", engine_table(results));
    if (json != nullptr) {
        write_json(options, results, *json);
    }
    return 0;
}

} // namespace

void add_run(CLI::App& app, action& chosen) {
    auto options = std::make_shared<run_options>();
    options->common.common.policies =
        "full,streaming_llm,snapkv(window=64),kvcrush(snapkv(window=64)),kvcrush_auto";
    options->common.common.keep_ratios = "0.25";
    CLI::App* command = app.add_subcommand(
        "run", "Evict from llama.cpp's cache of one text with several policies and compare.");
    command->footer("llama.cpp reads --context tokens with flash attention on. Then each policy "
                    "chooses, per layer and kv head, the\n"
                    "rows that stay; they move, as the bytes that they are, into a context of "
                    "their size, which goes on with the next\n"
                    "128 tokens. Layers with a sliding window keep what they have. A legend of the "
                    "columns stands below the table.\n"
                    "  kvcrush-llama run --model model.gguf --text book.txt --context 4096 "
                    "--policy full,kvcrush_auto");
    options->common.add_to(*command);
    lab::add_token_option(
        *command, "--context", options->context, 2, "tokens to read before eviction");
    command->callback([options, &chosen] { chosen = [options] { return run_command(*options); }; });
}

} // namespace client
