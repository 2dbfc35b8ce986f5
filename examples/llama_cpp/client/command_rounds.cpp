// SPDX-License-Identifier: Apache-2.0
#include "commands.hpp"
namespace client {
void add_rounds(CLI::App&, action&) {}
} // namespace client
