// SPDX-License-Identifier: Apache-2.0
// kvcrush-llama: evicts from llama.cpp's cache what a policy of this library says, and measures what that costs.
#include <kvcrush/config.hpp>

#include "commands.hpp"
#include "error.hpp"
#include "threads.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <new>
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
    std::fputs(fmt::format("kvcrush-llama: {}\n", lab::printable(line)).c_str(), stderr);
    return bad_input;
}

int finish(int code) {
    return std::fflush(stdout) != 0 || std::ferror(stdout) != 0
               ? complain("standard output cannot be written")
               : code;
}

bool is_subcommand(const CLI::App& app, std::string_view name) {
    for (const CLI::App* command : app.get_subcommands(nullptr)) {
        if (command->get_name() == name) {
            return true;
        }
    }
    return false;
}

int parse_and_run(int argc, char** argv) {
    CLI::App app{
        "Evicts from the KV cache of unmodified llama.cpp, per layer and kv head, what a policy of "
        "kvcrush says, "
        "and measures what that saves and what it costs.\nStart with: kvcrush-llama run --help"};
    app.set_version_flag(
        "--version",
        fmt::format(
            "{}.{}.{}", KVCRUSH_VERSION_MAJOR, KVCRUSH_VERSION_MINOR, KVCRUSH_VERSION_PATCH));
    app.require_subcommand(1);
    app.get_formatter()->column_width(34);
    client::action chosen;
    client::add_run(app, chosen);
    client::add_rounds(app, chosen);
    if (argc > 1 && argv[1][0] != '-' && !is_subcommand(app, argv[1])) {
        return complain(fmt::format("there is no subcommand {}; allowed: run, rounds",
                                    lab::in_quotes(argv[1])));
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& wanted) { // --help, --version
        return finish(app.exit(wanted));
    } catch (const CLI::ParseError& error) {
        return complain(error.what());
    }
    return finish(chosen());
}

} // namespace

int main(int argc, char** argv) {
    lab::wait_briefly(argv);
    try {
        return parse_and_run(argc, argv);
    } catch (const std::bad_alloc&) {
        return complain("there is not enough memory for this model and context");
    } catch (const std::exception& error) {
        return complain(error.what());
    }
}
