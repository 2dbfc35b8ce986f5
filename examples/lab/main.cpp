// SPDX-License-Identifier: Apache-2.0
// kvcrush-lab: compresses the KV cache of a real model and says what it costs.
#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <kvcrush/config.hpp>

#include "commands.hpp"

namespace {

constexpr int bad_input = 2;

int complain(const char* message) {
    fmt::print(stderr, "kvcrush-lab: {}\n", message);
    return bad_input;
}

} // namespace

int main(int argc, char** argv) {
    try {
        CLI::App app{"Compresses the KV cache of a real language model with kvcrush and measures what that saves "
                     "and what it costs.\nStart with: kvcrush-lab run --help"};
        app.set_version_flag("--version", fmt::format("{}.{}.{}", KVCRUSH_VERSION_MAJOR, KVCRUSH_VERSION_MINOR,
                                                      KVCRUSH_VERSION_PATCH));
        app.require_subcommand(1);
        app.get_formatter()->column_width(34);
        lab::action chosen;
        lab::add_run(app, chosen);
        lab::add_eval(app, chosen);
        lab::add_generate(app, chosen);
        lab::add_policies(app, chosen);
        try {
            app.parse(argc, argv);
        } catch (const CLI::Success& wanted) { // --help, --version
            return app.exit(wanted);
        } catch (const CLI::ParseError& error) {
            return complain(error.what());
        }
        return chosen();
    } catch (const std::invalid_argument& error) {
        return complain(error.what());
    } catch (const std::bad_alloc&) {
        return complain("there is not enough memory for this model and context");
    } catch (const std::exception& error) {
        return complain(error.what());
    }
}
