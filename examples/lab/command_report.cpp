// SPDX-License-Identifier: Apache-2.0
#include "command_options.hpp"
#include "commands.hpp"
#include "error.hpp"

#include <CLI/CLI.hpp>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>
#include <spawn.h>
#include <string>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

namespace lab {
namespace {

constexpr const char* needs =
    "the report needs python3 and matplotlib (Debian: python3 python3-matplotlib)";

struct report_options {
    std::vector<std::string> results;
    std::string out;
};

/// KVCRUSH_LAB_SOURCES, or the folder that this program was compiled from.
[[nodiscard]] std::string page_script() {
    const char* moved = std::getenv("KVCRUSH_LAB_SOURCES");
    const std::filesystem::path folder(moved == nullptr ? KVCRUSH_LAB_SOURCES : moved);
    const std::string script = (folder / "report_page.py").string();
    std::error_code error;
    if (!std::filesystem::is_regular_file(script, error)) {
        fail("the report is drawn by ",
             in_quotes(script),
             ", which is missing; KVCRUSH_LAB_SOURCES may name another folder");
    }
    return script;
}

/// Debian's matplotlib belongs to Debian's Python, which need not be the first on the PATH.
[[nodiscard]] std::string python() {
    if (const char* wanted = std::getenv("KVCRUSH_PYTHON"); wanted != nullptr) {
        return wanted;
    }
    const std::string debian = "/usr/bin/python3";
    return access(debian.c_str(), X_OK) == 0 ? debian : "python3";
}

/// Waits for a program and gives its exit code; no shell reads its arguments.
[[nodiscard]] int exit_code_of(std::vector<std::string> words) {
    std::vector<char*> arguments;
    for (std::string& word : words) {
        arguments.push_back(word.data());
    }
    arguments.push_back(nullptr);
    pid_t child = 0;
    if (posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments.data(), environ) != 0) {
        fail(needs);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            fail("the end of python3 was not seen: ", std::strerror(errno));
        }
    }
    if (!WIFEXITED(status)) {
        fail("python3 was ended by signal ", WTERMSIG(status));
    }
    constexpr int not_found = 127;
    if (WEXITSTATUS(status) == not_found) {
        fail(needs);
    }
    return WEXITSTATUS(status);
}

int report_command(const report_options& options) {
    std::vector<std::string> words{python(), page_script()};
    if (!options.out.empty()) {
        words.push_back("--out=" + options.out);
    }
    words.emplace_back("--"); // what follows are files, also those that begin with a dash
    words.insert(words.end(), options.results.begin(), options.results.end());
    std::cout.flush();
    std::fflush(stdout);
    return exit_code_of(std::move(words));
}

} // namespace

void add_report(CLI::App& app, action& chosen) {
    auto options = std::make_shared<report_options>();
    CLI::App* command = app.add_subcommand(
        "report", "Draw results of `run` and `eval` as one HTML page that works from disk.");
    command->footer("Drawn by Python with matplotlib (Debian: python3 python3-matplotlib).\n"
                    "Example: kvcrush-lab report all.json --out all.html");
    command->add_option("results", options->results, "what `run` or `eval` wrote with --json")
        ->required()
        ->type_name("OUT.json");
    add_file_option(*command,
                    "--out",
                    options->out,
                    "page to write (default: the first file, with .html at its end)")
        .type_name("FILE.html");
    command->callback(
        [options, &chosen] { chosen = [options] { return report_command(*options); }; });
}

} // namespace lab
