// SPDX-License-Identifier: Apache-2.0
#include "command_options.hpp"
#include "commands.hpp"

#include <fmt/format.h>

#include <memory>
#include <string>

namespace lab {
namespace {

struct eval_options {
    experiment_options common;
    std::string windows;
};

int eval_command(const eval_options& options) {
    experiment plan = options.common.parse();
    const std::vector<window> windows = read_windows(options.windows);
    std::unique_ptr<output_file> json;
    if (!options.common.json.empty()) {
        json = std::make_unique<output_file>(options.common.json);
    }
    const loaded_model loaded(options.common.model);
    plan.repeat_request = loaded.tokenizer.encode(repeat_request_text);
    check(plan, windows, loaded.model);
    fmt::print("{}: {} windows\n\n", loaded.file.name(), windows.size());
    return run_and_report(plan,
                          windows,
                          loaded.model,
                          options.common,
                          "windows",
                          {{"windows", options.windows}},
                          json.get());
}

} // namespace

void add_eval(CLI::App& app, action& chosen) {
    auto options = std::make_shared<eval_options>();
    CLI::App* command =
        app.add_subcommand("eval",
                           "Measure policies on many windows of token ids and average.\n"
                           "Each window is prefilled, compressed and continued as in `run`.");
    options->common.add_to(*command);
    command
        ->add_option(
            "--windows",
            options->windows,
            "JSON: {\"windows\": [{\"name\", \"context\": [ids], \"continuation\": [ids]}]}")
        ->required()
        ->type_name("FILE");
    command->callback(
        [options, &chosen] { chosen = [options] { return eval_command(*options); }; });
}

} // namespace lab
