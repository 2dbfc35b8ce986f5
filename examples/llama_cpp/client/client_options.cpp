// SPDX-License-Identifier: Apache-2.0
#include "client_options.hpp"

#include "error.hpp"

#include <utility>

namespace client {

void client_options::add_to(CLI::App& command) {
    lab::add_file_option(
        command, "--model", common.model, "GGUF file that llama.cpp runs, of any quantisation")
        .required();
    lab::add_file_option(command, "--text", text, "UTF-8 text to read").required();
    command
        .add_option("--policy",
                    common.policies,
                    "policies to compare, e.g. 'full,snapkv(window=64),kvcrush_auto,four_times'; "
                    "`kvcrush-lab policies` lists them")
        ->type_name("P[,P...]")
        ->capture_default_str();
    command
        .add_option("--keep-ratio",
                    common.keep_ratios,
                    "share of the tokens that each kv head keeps, in (0, 1]")
        ->type_name("R[,R...]")
        ->capture_default_str();
    command.add_option("--threads", threads, "threads of llama.cpp")
        ->type_name("N")
        ->check(CLI::Range(1, 1024, "from 1 to 1024"))
        ->capture_default_str();
    command
        .add_option("--cache-type",
                    cell_type,
                    "element type of llama.cpp's cache: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, "
                    "q4_0 or iq4_nl")
        ->type_name("TYPE")
        ->capture_default_str();
    lab::add_file_option(command, "--json", common.json, "write the results to this file as well");
}

lab::experiment client_options::parse(std::string& notes) const {
    lab::experiment plan = common.parse();
    even_policies even = make_even(std::move(plan.policies), common.policies == "all");
    plan.policies = std::move(even.policies);
    for (const std::string& note : even.notes) {
        notes += note + "\n";
    }
    return plan;
}

std::vector<llama_token> client_options::read_tokens(const engine& engine,
                                                     const std::string& content,
                                                     std::size_t count) const {
    if (count > engine.context_length() && engine.context_length() > 0) {
        lab::fail(
            count, " tokens are to be read; the model's context has ", engine.context_length());
    }
    std::vector<llama_token> tokens = engine.tokens_of(content);
    if (tokens.size() < count) {
        lab::fail("text ",
                  lab::in_quotes(text),
                  " has ",
                  tokens.size(),
                  " tokens; ",
                  count,
                  " are needed");
    }
    tokens.resize(count);
    return tokens;
}

} // namespace client
