// SPDX-License-Identifier: Apache-2.0
#include "command_options.hpp"
#include "commands.hpp"
#include "error.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "stream.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace lab {
namespace {

struct stream_command_options {
    experiment_options common;
    stream_options stream;
    std::string text;
};

int stream_command(const stream_command_options& options) {
    experiment plan = options.common.parse_policies_alone();
    const std::string text = read_file(options.text);
    const std::unique_ptr<output_file> json = options.common.open_json({options.text});
    const loaded_model loaded(options.common.model);
    loaded.prepare(plan);
    const std::size_t needed = options.stream.text_tokens();
    std::vector<int> tokens = loaded.tokenizer.encode(text, needed);
    tokens.insert(tokens.begin(), 0); // as in windows
    check_stream(
        plan, options.stream, "text " + in_quotes(options.text), tokens.size(), loaded.model);

    fmt::print("{}: {} tokens at once, then {} one by one; compressed to {} every {}\n\n",
               loaded.file.name(),
               options.stream.prompt,
               options.stream.tokens,
               options.stream.budget,
               options.stream.compress_every);
    std::vector<measurement> results;
    {
        progress_bar bar("reading");
        results = run_stream(plan,
                             options.stream,
                             std::filesystem::path(options.text).filename().string(),
                             tokens,
                             loaded.model,
                             [&](double done, double total) { bar.show(done, total); });
    }
    fmt::print("{}", table_of(results));
    fmt::print(
        "Here: tokens and MiB at the end of each part; select, compact: per compression, which "
        "tokens/s leaves out.\n");
    if (json) {
        write_document(options.common,
                       {{"text", std::filesystem::path(options.text).filename().string()},
                        {"prompt", fmt::format("{}", options.stream.prompt)},
                        {"tokens", fmt::format("{}", options.stream.tokens)},
                        {"budget", fmt::format("{}", options.stream.budget)},
                        {"compress_every", fmt::format("{}", options.stream.compress_every)}},
                       {{"results", json_of(results, "stream")}},
                       *json);
    }
    return 0;
}

} // namespace

void add_stream(CLI::App& app, action& chosen) {
    auto options = std::make_shared<stream_command_options>();
    options->common.policies = "full,random,streaming_llm,tova,h2o,snapkv,kvcrush(h2o)";
    options->common.keep_ratios.clear();
    CLI::App* command = app.add_subcommand(
        "stream", "Read a long text token by token on a cache that stays small, and compare.");
    command->footer(
        "Reads --prompt tokens at once, then --tokens one by one. Whenever --compress-every more "
        "were "
        "read,\n"
        "each kv head keeps --budget tokens. Every prediction is compared with the full cache's.");
    options->common.add_policies_to(*command);
    add_file_option(*command, "--text", options->text, "UTF-8 text to read").required();
    add_token_option(
        *command, "--prompt", options->stream.prompt, 0, "tokens that are read at once at first");
    add_token_option(*command,
                     "--tokens",
                     options->stream.tokens,
                     stream_parts,
                     "tokens that are read one by one");
    add_token_option(*command,
                     "--budget",
                     options->stream.budget,
                     1,
                     "tokens that each kv head keeps, sinks and recent included");
    add_token_option(*command,
                     "--compress-every",
                     options->stream.compress_every,
                     1,
                     "tokens between two compressions");
    command->callback(
        [options, &chosen] { chosen = [options] { return stream_command(*options); }; });
}

} // namespace lab
