// SPDX-License-Identifier: Apache-2.0
#include "command_options.hpp"
#include "commands.hpp"
#include "error.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace lab {
namespace {

struct run_options {
    experiment_options common;
    std::string text;
    std::size_t context = 2048;
};

/// The start of a text.
[[nodiscard]] window
window_of(const loaded_model& loaded, const run_options& options, const std::string& text) {
    const std::vector<int> tokens =
        loaded.tokenizer.encode(text, tokens_of_window(options.context));
    expect_window_fits(options.context, tokens.size(), "text " + in_quotes(options.text));
    return cut_window(
        std::filesystem::path(options.text).filename().string(), tokens, 0, options.context);
}

int run_command(const run_options& options) {
    experiment plan = options.common.parse();
    const std::string text = read_file(options.text);
    const std::unique_ptr<output_file> json = options.common.open_json({options.text});
    const loaded_model loaded(options.common.model);
    loaded.prepare(plan);
    const std::vector<window> windows{window_of(loaded, options, text)};
    check(plan, windows, loaded.model);
    fmt::print("{}: {} tokens of context, {} tokens predicted on each cache\n\n",
               loaded.file.name(),
               options.context,
               continuation_tokens - 1);
    return run_and_report(
        plan,
        windows,
        loaded.model,
        options.common,
        "run",
        {{"text", windows.front().name}, {"context", fmt::format("{}", options.context)}},
        json.get());
}

} // namespace

void add_run(CLI::App& app, action& chosen) {
    auto options = std::make_shared<run_options>();
    CLI::App* command = app.add_subcommand(
        "run", "Compress the cache of one text with several policies and compare.");
    command->footer(
        "Prefills --context tokens, compresses with each policy at each keep ratio, then predicts "
        "the\n"
        "next 128 tokens on the compressed cache. A legend of the columns stands below the table.");
    options->common.add_to(*command);
    add_file_option(*command, "--text", options->text, "UTF-8 text to read").required();
    add_token_option(
        *command, "--context", options->context, 2, "tokens to prefill before compression");
    command->callback([options, &chosen] { chosen = [options] { return run_command(*options); }; });
}

} // namespace lab
