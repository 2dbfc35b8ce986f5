// SPDX-License-Identifier: Apache-2.0
// kvcrush-lab: compresses the KV cache of a real model and says what it costs.
#include <kvcrush/config.hpp>

#include "commands.hpp"
#include "error.hpp"
#include "threads.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>

namespace {

constexpr int bad_input = 2;

int complain(std::string_view message) {
    // One line, whatever a library says or a file is called.
    std::string line;
    for (const char letter : message) {
        line += letter == '\n' ? "; " : std::string(1, letter);
    }
    // Unlike fmt::print, fputs does not throw where nothing can be written.
    std::fputs(fmt::format("kvcrush-lab: {}\n", lab::printable(line)).c_str(), stderr);
    return bad_input;
}

bool output_is_lost() {
    std::cout.flush();
    return !std::cout || std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
}

bool is_subcommand(const CLI::App& app, std::string_view name) {
    for (const CLI::App* command : app.get_subcommands(nullptr)) {
        if (command->get_name() == name) {
            return true;
        }
    }
    return false;
}

} // namespace

int main(int argc, char** argv) {
    lab::wait_briefly(argv);
    try {
        CLI::App app{"Compresses the KV cache of a real language model with kvcrush and measures "
                     "what that saves "
                     "and what it costs.\nStart with: kvcrush-lab run --help"};
        app.set_version_flag(
            "--version",
            fmt::format(
                "{}.{}.{}", KVCRUSH_VERSION_MAJOR, KVCRUSH_VERSION_MINOR, KVCRUSH_VERSION_PATCH));
        app.require_subcommand(1);
        app.get_formatter()->column_width(34);
        lab::action chosen;
        lab::add_run(app, chosen);
        lab::add_eval(app, chosen);
        lab::add_stream(app, chosen);
        lab::add_generate(app, chosen);
        lab::add_policies(app, chosen);
        lab::add_report(app, chosen);
        if (argc > 1 && argv[1][0] != '-' && !is_subcommand(app, argv[1])) {
            return complain(fmt::format(
                "there is no subcommand {}; allowed: run, eval, stream, generate, policies, report",
                lab::in_quotes(argv[1])));
        }
        try {
            app.parse(argc, argv);
        } catch (const CLI::Success& wanted) { // --help, --version
            const int code = app.exit(wanted);
            return output_is_lost() ? complain("standard output cannot be written") : code;
        } catch (const CLI::ParseError& error) {
            return complain(error.what());
        }
        const int code = chosen();
        return output_is_lost() ? complain("standard output cannot be written") : code;
    } catch (const std::invalid_argument& error) {
        return complain(error.what());
    } catch (const std::bad_alloc&) {
        return complain("there is not enough memory for this model and context");
    } catch (const std::exception& error) {
        return complain(error.what());
    }
}
