// SPDX-License-Identifier: Apache-2.0
// kvcrush-llama-bench: what the backend gains inside llama.cpp, and what it changes.
#include "command_options.hpp"
#include "error.hpp"
#include "files.hpp"
#include "numbers.hpp"
#include "progress.hpp"
#include "turns.hpp"
#include "turns_report.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>

namespace {

constexpr int bad_input = 2;

struct options {
    std::string model;
    std::string text;
    std::string backend = KVCRUSH_GGML_BACKEND;
    std::string types = "f16,q8_0,q4_0";
    std::string depths = "1024,2048,4096";
    std::string threads = "1,2";
    std::size_t prompt = 1024;
    std::string json;
};

/// Comma-separated numbers in [least, most], ascending.
template <typename T>
std::vector<T> numbers_in(const std::string& list, const char* name, T least, T most) {
    std::vector<T> numbers;
    for (const std::string& word : lab::split_at_commas(list)) {
        T number{};
        if (!lab::parse_number(word, number) || number < least || number > most) {
            lab::fail(name,
                      " is ",
                      lab::in_quotes(list),
                      "; allowed: numbers from ",
                      least,
                      " to ",
                      most,
                      ", with commas between them");
        }
        numbers.push_back(number);
    }
    std::sort(numbers.begin(), numbers.end());
    return numbers;
}

std::vector<ggml_type> types_in(const std::string& list) {
    constexpr ggml_type allowed[] = {GGML_TYPE_F32,
                                     GGML_TYPE_F16,
                                     GGML_TYPE_BF16,
                                     GGML_TYPE_Q8_0,
                                     GGML_TYPE_Q5_1,
                                     GGML_TYPE_Q5_0,
                                     GGML_TYPE_Q4_1,
                                     GGML_TYPE_Q4_0,
                                     GGML_TYPE_IQ4_NL};
    std::vector<ggml_type> types;
    for (const std::string& word : lab::split_at_commas(list)) {
        const auto* const found =
            std::find_if(std::begin(allowed), std::end(allowed), [&](ggml_type type) {
                return word == ggml_type_name(type);
            });
        if (found == std::end(allowed)) {
            lab::fail("--types has ",
                      lab::in_quotes(word),
                      "; allowed: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl");
        }
        types.push_back(*found);
    }
    return types;
}

void measure(const options& given) {
    turns::plan plan{.model = given.model,
                     .backend = given.backend,
                     .text = lab::read_file(given.text),
                     .types = types_in(given.types),
                     .depths = numbers_in<std::size_t>(given.depths, "--depths", 32, 1'000'000),
                     .threads = numbers_in<int>(given.threads, "--threads", 1, 1024),
                     .prompt = given.prompt};
    lab::experiment_options files;
    files.model = given.model;
    files.json = given.json;
    const std::unique_ptr<lab::output_file> json = files.open_json({given.text, given.backend});
    std::vector<turns::row> rows;
    {
        lab::progress_bar bar("measuring");
        rows = turns::run(plan, [&](double done, double all) { bar.show(done, all); });
    }
    if (std::fputs(turns::table_of(rows).c_str(), stdout) < 0 || std::fflush(stdout) != 0) {
        lab::fail("standard output cannot be written");
    }
    if (json != nullptr) {
        json->commit(turns::json_of(rows));
    }
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app{"Decodes the same tokens over the same cache in unmodified llama.cpp, by ggml "
                 "alone and with the "
                 "kvcrush backend,\nin turns, and compares times and predictions."};
    app.footer(
        "One context is made before the backend is loaded and computes by ggml alone, one after "
        "it. Both\n"
        "are given the same cache and decode the same 64 tokens, each token by one and by the "
        "other; that\n"
        "the backend computed for its own context, and for it alone, is checked at every token.\n"
        "Rows of the table whose bar does not hold say NOT. Times mean something on an idle "
        "machine.\n"
        "\n"
        "  kvcrush-llama-bench --model M.gguf --text T.txt --types q8_0,q4_0 --depths 4096 "
        "--threads 1\n"
        "  kvcrush-llama-bench --model M.gguf --text T.txt --depths 1024 --prompt 0 --json "
        "rows.json");
    options given;
    lab::add_file_option(app, "--model", given.model, "GGUF file, any that llama.cpp runs")
        .required();
    lab::add_file_option(
        app, "--text", given.text, "UTF-8 text to read, as many tokens as the largest depth")
        .required();
    lab::add_file_option(app, "--backend", given.backend, "libggml-kvcrush.so")
        .capture_default_str();
    app.add_option("--types", given.types, "types of the cache, keys and values alike")
        ->capture_default_str();
    app.add_option("--depths",
                   given.depths,
                   "tokens in the cache; what each loses against f16, and the floor, at the least")
        ->capture_default_str();
    app.add_option("--threads", given.threads, "one: CPU time is taken; more: wall time")
        ->capture_default_str();
    lab::add_token_option(app,
                          "--prompt",
                          given.prompt,
                          0,
                          "tokens of the prompt that is timed with the least of --threads, 0 for none");
    lab::add_file_option(app, "--json", given.json, "file to write the rows to");
    try {
        app.parse(argc, argv);
        measure(given);
        return 0;
    } catch (const CLI::Success& wanted) {
        return app.exit(wanted);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "kvcrush-llama-bench: %s\n", lab::printable(error.what()).c_str());
        return bad_input;
    }
}
