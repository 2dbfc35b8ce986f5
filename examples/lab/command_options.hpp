// SPDX-License-Identifier: Apache-2.0
/// @file
/// Options that several subcommands share.
#pragma once

#include "experiment.hpp"
#include "files.hpp"
#include "gguf.hpp"
#include "model.hpp"
#include "tokenizer.hpp"

#include <CLI/CLI.hpp>
#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lab {

/// What `run`, `eval` and `stream` compare, as strings of the command line.
struct experiment_options {
    std::string model;
    std::string policies =
        "full,random,streaming_llm,knorm,h2o,snapkv,kvcrush(h2o),kvcrush(snapkv)";
    std::string keep_ratios = "0.5,0.25,0.125";
    std::string cache = "f16";
    std::string json;

    void add_to(CLI::App& command);
    /// All but --keep-ratio, for what knows a budget in tokens.
    void add_policies_to(CLI::App& command);
    /// @throws input_error or std::invalid_argument naming what is wrong
    [[nodiscard]] experiment parse() const;
    /// Without keep ratios.
    [[nodiscard]] experiment parse_policies_alone() const;
    /// --json, or nothing where it was not given.
    /// @param inputs  what is read beside the model; names may be empty
    /// @throws input_error if it cannot be written, or is a file that is read
    [[nodiscard]] std::unique_ptr<output_file> open_json(std::vector<std::string> inputs) const;
};

/// A model with its tokenizer.
struct loaded_model {
    explicit loaded_model(const std::string& path);

    /// Tells a plan what it has to know of the model and its tokens.
    void prepare(experiment& plan) const;

    gguf_file file;
    lab::tokenizer tokenizer;
    llama model;
};

/// --cache f32|f16
[[nodiscard]] cache_type parse_cache_type(const std::string& name);
/// A file to read or write; an empty name, as a script's unset variable gives, is refused.
CLI::Option& add_file_option(CLI::App& command,
                             const std::string& name,
                             std::string& path,
                             const std::string& about);
void add_model_option(CLI::App& command, std::string& model);
/// A number of tokens, at least `least` and far from overflow.
void add_token_option(CLI::App& command,
                      const std::string& name,
                      std::size_t& tokens,
                      std::int64_t least,
                      const std::string& about);
void add_cache_option(CLI::App& command, std::string& cache);

/// Writes the JSON contract: model, machine, arguments and what was measured.
/// @param arguments  further command line options
/// @param parts      "results", and what else there is
void write_document(const experiment_options& options,
                    std::vector<std::pair<std::string, std::string>> arguments,
                    nlohmann::json parts,
                    output_file& json);

/// Runs an experiment with a progress bar, prints the table, writes the JSON file.
/// @param task       what stands in the JSON
/// @param arguments  the command line options, for the JSON
/// @return exit code
int run_and_report(const experiment& plan,
                   const std::vector<window>& windows,
                   const llama& model,
                   const experiment_options& options,
                   const std::string& task,
                   std::vector<std::pair<std::string, std::string>> arguments,
                   output_file* json);

} // namespace lab
