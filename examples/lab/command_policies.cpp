// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/text/help.hpp>

#include "commands.hpp"
#include "policy.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

namespace lab {
namespace {

int policies_command() {
    for (const kvcrush::policy_help& entry : list_policies()) {
        const bool keeps = entry.role != kvcrush::policy_role::suffix &&
                           entry.role != kvcrush::policy_role::codec;
        fmt::print("{}\n    {}{}\n", entry.form, keeps ? "keeps " : "", entry.about);
        for (const kvcrush::policy_help::row& row : entry.parameters) {
            fmt::print(
                "    {:<10} = {:<13} {} [{}]\n", row.name, row.value, row.about, row.allowed);
        }
        fmt::print("\n");
    }
    fmt::print("Write parameters by name: snapkv(window=16,pool=avg), "
               "kvcrush(h2o(last=256),anchor=alternate,share=0.1)\n");
    return 0;
}

} // namespace

void add_policies(CLI::App& app, action& chosen) {
    CLI::App* command =
        app.add_subcommand("policies", "List the policies with their parameters and defaults.");
    command->callback([&chosen] { chosen = policies_command; });
}

} // namespace lab
