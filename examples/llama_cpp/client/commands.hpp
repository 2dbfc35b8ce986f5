// SPDX-License-Identifier: Apache-2.0
/// @file
/// The subcommands of kvcrush-llama. Each adds itself to the program and says what to do when it was chosen.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace client {

/// What a chosen subcommand does; returns the exit code.
using action = std::function<int()>;

void add_run(CLI::App& app, action& chosen);
void add_rounds(CLI::App& app, action& chosen);

} // namespace client
