// SPDX-License-Identifier: Apache-2.0
#include "command_options.hpp"

#include "error.hpp"
#include "numbers.hpp"
#include "progress.hpp"
#include "report.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <system_error>

namespace lab {

CLI::Option& add_file_option(CLI::App& command,
                             const std::string& name,
                             std::string& path,
                             const std::string& about) {
    const CLI::Validator named(
        [](const std::string& text) -> std::string {
            return text.empty() ? "the name of a file is empty" : "";
        },
        "");
    return *command.add_option(name, path, about)->type_name("FILE")->check(named);
}

void add_model_option(CLI::App& command, std::string& model) {
    add_file_option(command,
                    "--model",
                    model,
                    "GGUF file: llama architecture; F32, F16, Q8_0, Q4_0 or Q4_1 tensors")
        .required();
}

void add_token_option(CLI::App& command,
                      const std::string& name,
                      std::size_t& tokens,
                      std::int64_t least,
                      const std::string& about) {
    constexpr std::int64_t most = 1'000'000'000;
    command.add_option(name, tokens, about)
        ->type_name("TOKENS")
        ->check(CLI::Range(least, most, fmt::format("from {} to {}", least, most)))
        ->capture_default_str();
}

void add_cache_option(CLI::App& command, std::string& cache) {
    command.add_option("--cache", cache, "element type of the KV cache: f16 or f32")
        ->type_name("TYPE")
        ->capture_default_str();
}

void experiment_options::add_to(CLI::App& command) {
    add_policies_to(command);
    command
        .add_option(
            "--keep-ratio", keep_ratios, "share of the tokens that each kv head keeps, in (0, 1]")
        ->type_name("R[,R...]")
        ->capture_default_str();
}

void experiment_options::add_policies_to(CLI::App& command) {
    add_model_option(command, model);
    command
        .add_option(
            "--policy",
            policies,
            "policies to compare, e.g. 'full,snapkv(window=16),kvcrush(h2o,share=0.1)', or all; "
            "`kvcrush-lab policies` lists them")
        ->type_name("P[,P...]")
        ->capture_default_str();
    add_cache_option(command, cache);
    add_file_option(command, "--json", json, "write the results to this file as well");
}

cache_type parse_cache_type(const std::string& name) {
    if (name != "f16" && name != "f32") {
        fail("--cache is ", in_quotes(name), "; allowed: f16, f32");
    }
    return name == "f16" ? cache_type::f16 : cache_type::f32;
}

experiment experiment_options::parse_policies_alone() const {
    experiment plan;
    plan.policies = parse_policies(policies);
    plan.type = parse_cache_type(cache);
    return plan;
}

experiment experiment_options::parse() const {
    experiment plan = parse_policies_alone();
    for (const std::string& text : split_at_commas(keep_ratios)) {
        double ratio = 0.0;
        if (!parse_number(text, ratio) || !(ratio > 0.0 && ratio <= 1.0)) {
            fail("--keep-ratio is ", in_quotes(text), "; allowed: numbers in (0, 1]");
        }
        plan.keep_ratios.push_back(ratio);
    }
    return plan;
}

std::unique_ptr<output_file> experiment_options::open_json(std::vector<std::string> inputs) const {
    if (json.empty()) {
        return nullptr;
    }
    inputs.push_back(model);
    for (const std::string& input : inputs) {
        std::error_code missing;
        if (!input.empty() && std::filesystem::equivalent(input, json, missing)) {
            fail("--json is ", in_quotes(json), ", a file that is read");
        }
    }
    return std::make_unique<output_file>(json);
}

loaded_model::loaded_model(const std::string& path)
    : file(path), tokenizer(file), model(llama::load(file)) {}

void loaded_model::prepare(experiment& plan) const {
    plan.repeat_request = tokenizer.encode(repeat_request_text);
}

void write_document(const experiment_options& options,
                    std::vector<std::pair<std::string, std::string>> arguments,
                    nlohmann::json parts,
                    output_file& json) {
    nlohmann::json said = {{"policy", options.policies},
                           {"keep_ratio", options.keep_ratios},
                           {"cache", options.cache}};
    for (auto& [key, value] : arguments) {
        said[key] = std::move(value);
    }
    parts["model"] = options.model.substr(options.model.find_last_of('/') + 1);
    parts["machine"] = json_of_machine();
    parts["arguments"] = std::move(said);
    const auto written = [](const nlohmann::json& value, int indent) {
        return value.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
    };
    // Maps are long lists of numbers, which would take a line each.
    const nlohmann::json maps = parts.contains("kept_map") ? parts["kept_map"] : nlohmann::json();
    parts.erase("kept_map");
    std::string text = written(parts, 2);
    if (!maps.is_null()) {
        text.resize(text.size() - 2); // without the last brace and its line
        text += ",\n  \"kept_map\": " + written(maps, -1) + "\n}";
    }
    json.commit(text + "\n");
}

int run_and_report(const experiment& plan,
                   const std::vector<window>& windows,
                   const llama& model,
                   const experiment_options& options,
                   const std::string& task,
                   std::vector<std::pair<std::string, std::string>> arguments,
                   output_file* json) {
    std::vector<measurement> results;
    {
        progress_bar bar("measuring");
        results =
            run(plan, windows, model, [&](double done, double total) { bar.show(done, total); });
    }
    if (windows.size() == 1) { // the mean of one window says nothing new
        fmt::print("{}", table_of(results));
    }
    append_means(results);
    if (windows.size() != 1) {
        fmt::print("{}", table_of(results));
    }
    if (json != nullptr) {
        write_document(options, std::move(arguments), {{"results", json_of(results, task)}}, *json);
    }
    return 0;
}

} // namespace lab
