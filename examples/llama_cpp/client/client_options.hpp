// SPDX-License-Identifier: Apache-2.0
/// @file
/// Options that the subcommands share, and the lab's words for them.
#pragma once

#include "command_options.hpp"
#include "engine.hpp"
#include "even_policies.hpp"

#include <CLI/CLI.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace client {

struct client_options {
    lab::experiment_options common; ///< model, policies, keep ratios, JSON
    std::string text;
    std::size_t threads = 1;
    std::string cell_type = "f16";

    void add_to(CLI::App& command);
    [[nodiscard]] context_options cells() const {
        return {.type = parse_cell_type(cell_type), .threads = threads};
    }
    /// @param[out] notes  what was changed in the policies, and what their figures mean; lines
    /// @throws lab::input_error or std::invalid_argument naming what is wrong
    [[nodiscard]] lab::experiment parse(std::string& notes) const;
    /// The first `count` tokens of the text.
    /// @throws lab::input_error if the text is shorter, or the model's context
    [[nodiscard]] std::vector<llama_token>
    read_tokens(const engine& engine, const std::string& text, std::size_t count) const;
};

} // namespace client
