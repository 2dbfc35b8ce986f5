// SPDX-License-Identifier: Apache-2.0
#include "command_options.hpp"
#include "commands.hpp"
#include "compression.hpp"
#include "error.hpp"
#include "experiment.hpp"
#include "generate.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace lab {
namespace {

struct generate_options {
    std::string model;
    std::string prompt;
    std::string policy = "kvcrush(snapkv)";
    std::string cache = "f16";
    std::size_t budget = 0;
    std::size_t compress_every = 64;
    std::size_t max_tokens = 128;
    bool chat = false;
};

int generate_command(const generate_options& options) {
    std::vector<policy> policies = parse_policies(options.policy);
    if (policies.size() != 1) {
        fail("--policy is ", in_quotes(options.policy), "; generate runs one policy at a time");
    }
    policy& how = policies.front();
    how.how.when.every = options.compress_every;
    const cache_type type = parse_cache_type(options.cache);
    if (options.budget > 0 && !how.full()) { // refuse it before the model loads
        static_cast<void>(kvcrush::budget::tokens(options.budget, how.how.areas)
                              .tokens_for(options.budget + how.how.areas.num_sink_tokens +
                                          how.how.areas.num_recent_tokens + 1));
    }
    const loaded_model loaded(options.model);
    const std::string prompt =
        options.chat
            ? fmt::format("<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", options.prompt)
            : options.prompt;
    const std::vector<int> ids = loaded.tokenizer.encode(prompt);
    if (ids.empty()) {
        fail("--prompt is empty; it must hold at least one token");
    }

    kvcrush::kv_cache cache = copy_for(loaded.model.make_cache(type), how);
    std::size_t compressions = 0;
    std::vector<int> seen = ids;
    const std::vector<int> request = loaded.tokenizer.encode(repeat_request_text);
    const auto next = [&](std::size_t, int token) {
        const std::size_t budget = options.budget > 0 ? options.budget : seen.size();
        const kvcrush::cache_budget keep = how.within(budget, seen.size());
        if (cache.is_due({.keep = keep})) { // before anything is printed: it may refuse
            static_cast<void>(compress(cache, {loaded.model, seen, request}, keep));
            ++compressions;
        }
        fmt::print("{}", loaded.tokenizer.decode(std::span(&token, 1)));
        std::fflush(stdout);
        seen.push_back(token);
    };
    generation_options generation;
    generation.max_new_tokens = options.max_tokens;
    generation.end_token = loaded.tokenizer.end_token();
    const std::vector<int> generated = generate(loaded.model, cache, ids, generation, next);
    fmt::print("\n");
    fmt::print(stderr,
               "[{} prompt tokens, {} generated; {} tokens seen, {} held per kv head, {:.2f} MiB; "
               "compressed {} times]\n",
               ids.size(),
               generated.size(),
               cache.tokens_seen(),
               cache.longest_head(),
               static_cast<double>(cache.bytes_held()) / (1024.0 * 1024.0),
               compressions);
    return 0;
}

} // namespace

void add_generate(CLI::App& app, action& chosen) {
    auto options = std::make_shared<generate_options>();
    CLI::App* command = app.add_subcommand(
        "generate",
        "Continue a prompt greedily on a cache that never grows far beyond a budget.\n"
        "Compresses after the prompt and then every --compress-every tokens.");
    add_model_option(*command, options->model);
    command->add_option("--prompt", options->prompt, "text to continue")
        ->required()
        ->type_name("TEXT");
    command->add_option("--policy", options->policy, "one policy, see `kvcrush-lab policies`")
        ->type_name("P")
        ->capture_default_str();
    add_token_option(
        *command,
        "--budget",
        options->budget,
        0,
        "tokens that each kv head keeps, sinks and recent included; 0 = all, which codecs "
        "store still");
    add_token_option(*command,
                     "--compress-every",
                     options->compress_every,
                     1,
                     "tokens between two compressions");
    add_token_option(
        *command, "--max-tokens", options->max_tokens, 1, "tokens to generate at most");
    command->add_flag("--chat", options->chat, "wrap the prompt in the model's chat template");
    add_cache_option(*command, options->cache);
    command->callback(
        [options, &chosen] { chosen = [options] { return generate_command(*options); }; });
}

} // namespace lab
