// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/config.hpp>

#include "command_options.hpp"
#include "commands.hpp"
#include "error.hpp"
#include "evaluation.hpp"
#include "evaluation_report.hpp"
#include "expression.hpp"
#include "filler.hpp"
#include "parameters.hpp"
#include "progress.hpp"
#include "task_generators.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lab {
namespace {

constexpr std::array retrieval_tasks{retrieval_task::passkey,
                                     retrieval_task::multikey,
                                     retrieval_task::multi_value,
                                     retrieval_task::variable_tracking,
                                     retrieval_task::common_words};
constexpr std::string_view task_names =
    "lm, passkey, multikey, multi_value, variable_tracking, common_words, all";

struct eval_options {
    experiment_options common;
    std::string windows;
    std::string dialogues;
    std::string task;
    std::string mode = "agnostic";
    std::string text;
    std::string seeds = "0";
    std::string against;
    std::string resume;
    std::size_t samples = 8;
    std::size_t context = 1024;
    double depth = -1.0; ///< spread where negative
    bool requests = false;
};

/// What --task names.
struct chosen_tasks {
    bool lm = false;
    std::vector<retrieval_task> retrieval;
};

[[nodiscard]] chosen_tasks parse_tasks(const std::string& list) {
    chosen_tasks chosen;
    for (const std::string& name : split_list(list)) {
        bool known = name == "all" || name == "lm";
        chosen.lm = chosen.lm || known;
        for (const retrieval_task task : retrieval_tasks) {
            if (name == "all" || name == name_of(task)) {
                known = true;
                if (std::find(chosen.retrieval.begin(), chosen.retrieval.end(), task) ==
                    chosen.retrieval.end()) {
                    chosen.retrieval.push_back(task);
                }
            }
        }
        if (!known) {
            fail("--task is ", in_quotes(name), "; allowed: ", task_names);
        }
    }
    return chosen;
}

[[nodiscard]] std::vector<std::uint64_t> parse_seeds(const std::string& list) {
    std::vector<std::uint64_t> seeds;
    for (const std::string& text : split_list(list)) {
        std::uint64_t seed = 0;
        if (!parse_value(text, seed)) {
            fail("--seed is ", in_quotes(text), "; allowed: whole numbers from 0");
        }
        if (std::find(seeds.begin(), seeds.end(), seed) == seeds.end()) {
            seeds.push_back(seed);
        }
    }
    return seeds;
}

/// Tells files apart, whatever they are called. FNV-1a.
[[nodiscard]] std::string fingerprint(std::string_view content) {
    std::uint64_t hash = 0xCBF29CE484222325ULL;
    for (const char letter : content) {
        hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001B3ULL;
    }
    return fmt::format("{:016x}", hash);
}

[[nodiscard]] std::string fingerprint_of_file(const std::string& path) {
    return path.empty() ? "" : fingerprint(read_file(path));
}

/// Everything that results depend on and that their keys do not say.
[[nodiscard]] nlohmann::json settings_of(const eval_options& options, const std::string& mode) {
    const bool generated = !options.task.empty();
    nlohmann::json settings = {
        {"version",
         fmt::format(
             "{}.{}.{}", KVCRUSH_VERSION_MAJOR, KVCRUSH_VERSION_MINOR, KVCRUSH_VERSION_PATCH)},
        {"model", std::filesystem::path(options.common.model).filename().string()},
        {"model_bytes", std::filesystem::file_size(options.common.model)},
        {"cache", options.common.cache},
        {"mode", mode},
        {"windows", fingerprint_of_file(options.windows)},
        {"dialogues", fingerprint_of_file(options.dialogues)},
        {"text", fingerprint_of_file(options.text)}};
    if (generated) {
        settings["generators"] = generator_version;
        settings["context"] = options.context;
        settings["depth"] = options.depth;
    }
    return settings;
}

void check_combination(const eval_options& options, const CLI::App& command) {
    const int sources = (options.windows.empty() ? 0 : 1) + (options.dialogues.empty() ? 0 : 1) +
                        (options.task.empty() ? 0 : 1);
    if (sources != 1) {
        fail("eval needs exactly one of --task, --windows, --dialogues; there are ", sources);
    }
    for (const char* name : {"--text", "--samples", "--seed", "--context", "--depth"}) {
        if (options.task.empty() && command.count(name) > 0) {
            fail(name, " goes with --task only");
        }
    }
    for (const char* name : {"--mode", "--requests"}) {
        if (!options.windows.empty() && command.count(name) > 0) {
            fail(name, " goes with --task and --dialogues only: windows ask no questions");
        }
    }
    if (options.mode != "agnostic" && options.mode != "aware") {
        fail("--mode is ", in_quotes(options.mode), "; allowed: agnostic, aware");
    }
    if (options.requests && options.mode == "aware") {
        fail("--requests asks each question of a cache compressed before any; it goes with --mode "
             "agnostic only");
    }
    if (command.count("--depth") > 0 && !(options.depth >= 0.0 && options.depth <= 1.0)) {
        fail("--depth is ", options.depth, "; allowed: 0 to 1");
    }
}

void require_policy(const std::vector<policy>& policies, const std::string& wanted) {
    const bool found = std::any_of(
        policies.begin(), policies.end(), [&](const policy& how) { return how.text == wanted; });
    if (!wanted.empty() && !found) {
        fail("--against is ", in_quotes(wanted), "; it must be one of --policy, written alike");
    }
}

/// The samples of --task.
class sample_maker {
public:
    sample_maker(const eval_options& options, const tokenizer& words)
        : options_(options), words_(words) {}

    void make(const chosen_tasks& tasks, const std::string& text, evaluation& all) const {
        const std::vector<std::uint64_t> seeds = parse_seeds(options_.seeds);
        if (tasks.lm) {
            make_texts(seeds, text, all);
        }
        const filler hay = options_.text.empty() ? classic_filler() : named_filler(text);
        const encoder encode = [this](std::string_view words) { return words_.encode(words); };
        for (const retrieval_task task : tasks.retrieval) {
            for_each_sample(seeds, [&](const task_options& options, std::size_t index) {
                all.dialogues.push_back(make_dialogue(task, options, hay, encode, index));
            });
        }
    }

private:
    template <typename F>
    void for_each_sample(const std::vector<std::uint64_t>& seeds, const F& what) const {
        task_options options{options_.context};
        if (options_.depth >= 0.0) {
            options.depth = options_.depth;
        }
        for (const std::uint64_t seed : seeds) {
            options.seed = seed;
            for (std::size_t index = 0; index < options_.samples; ++index) {
                what(options, index);
            }
        }
    }

    [[nodiscard]] filler named_filler(const std::string& text) const {
        try {
            return filler_of(text);
        } catch (const input_error& error) {
            fail("file ", in_quotes(options_.text), ": ", error.what());
        }
    }

    void make_texts(const std::vector<std::uint64_t>& seeds,
                    const std::string& text,
                    evaluation& all) const {
        try {
            const std::vector<int> ids = words_.encode(text);
            for_each_sample(seeds, [&](const task_options& options, std::size_t index) {
                all.texts.push_back({"lm", make_window(options, ids, index), options.seed, index});
            });
        } catch (const input_error& error) {
            fail("file ", in_quotes(options_.text), ": ", error.what());
        }
    }

    const eval_options& options_;
    const tokenizer& words_;
};

[[nodiscard]] std::vector<std::pair<std::string, std::string>> said(const eval_options& options,
                                                                    const std::string& mode) {
    std::vector<std::pair<std::string, std::string>> arguments;
    const auto add = [&](const char* name, const std::string& value) {
        if (!value.empty()) {
            arguments.emplace_back(name, value);
        }
    };
    add("windows", options.windows);
    add("dialogues", options.dialogues);
    add("task", options.task);
    add("text", options.text);
    add("against", options.against);
    if (options.windows.empty()) {
        add("mode", mode);
    }
    if (!options.task.empty()) {
        add("samples", fmt::format("{}", options.samples));
        add("seed", options.seeds);
        add("context", fmt::format("{}", options.context));
        add("depth", options.depth < 0.0 ? "spread" : fmt::format("{:g}", options.depth));
    }
    return arguments;
}

int eval_command(const eval_options& options, const CLI::App& command) {
    check_combination(options, command);
    evaluation all;
    all.plan = options.common.parse();
    all.mode = options.mode == "aware" ? visibility::aware : visibility::agnostic;
    all.style = options.requests ? conversation::requests : conversation::turns;
    require_policy(all.plan.policies, options.against);
    chosen_tasks tasks = options.task.empty() ? chosen_tasks{} : parse_tasks(options.task);
    static_cast<void>(parse_seeds(options.seeds));
    if (tasks.lm && options.text.empty()) {
        if (tasks.retrieval.empty()) {
            fail("task lm needs a text to go on with: --text FILE");
        }
        fmt::print("lm is left out: it needs a text to go on with, --text FILE\n");
        tasks.lm = false;
    }
    const std::string text = options.text.empty() ? "" : read_file(options.text);
    if (!options.windows.empty()) {
        std::vector<window> windows = read_windows(options.windows);
        for (std::size_t i = 0; i < windows.size(); ++i) {
            all.texts.push_back({"windows", std::move(windows[i]), std::nullopt, i});
        }
    }
    if (!options.dialogues.empty()) {
        all.dialogues = read_dialogues(options.dialogues);
    }
    std::unique_ptr<output_file> json;
    if (!options.common.json.empty()) {
        json = std::make_unique<output_file>(options.common.json);
    }
    const loaded_model loaded(options.common.model);
    all.plan.repeat_request = loaded.tokenizer.encode(repeat_request_text);
    sample_maker(options, loaded.tokenizer).make(tasks, text, all);
    check(all, loaded.model);
    const std::string mode(name_of(retrieval_plan{all.mode, all.style}));
    std::unique_ptr<journal> done;
    if (!options.resume.empty()) {
        done = std::make_unique<journal>(options.resume, settings_of(options, mode));
    }
    fmt::print(
        "{}: {} texts, {} dialogues\n", loaded.file.name(), all.texts.size(), all.dialogues.size());
    std::fflush(stdout);

    evaluation_results results;
    {
        progress_bar bar("measuring");
        results = run(all, loaded.model, done.get(), [&](double part, double total) {
            bar.show(part, total);
        });
    }
    if (results.read_back > 0) {
        fmt::print("{} of {} rows were finished by an earlier run\n",
                   results.read_back,
                   results.texts.size() + results.dialogues.size());
    }
    fmt::print("\n{}", table_of(results, mode));
    nlohmann::json parts = {{"results", json_of(results, mode)}};
    if (!options.against.empty()) {
        const std::vector<comparison> comparisons = compare_with(results, options.against);
        fmt::print("{}", table_of(comparisons));
        parts["comparisons"] = json_of(comparisons);
    }
    if (json) {
        write_document(options.common, said(options, mode), std::move(parts), *json);
    }
    return 0;
}

void add_sources(CLI::App& command, eval_options& options) {
    command.add_option("--task", options.task, fmt::format("samples to make: {}", task_names))
        ->type_name("T[,T...]");
    command
        .add_option(
            "--windows",
            options.windows,
            "JSON: {\"windows\": [{\"name\", \"context\": [ids], \"continuation\": [ids]}]}")
        ->type_name("FILE");
    command
        .add_option("--dialogues",
                    options.dialogues,
                    "JSON: {\"dialogues\": [{\"name\", \"context\": [ids], \"turns\": "
                    "[{\"question\": [ids], \"answer\": [ids]}]}]}")
        ->type_name("FILE");
}

void add_task_options(CLI::App& command, eval_options& options) {
    constexpr std::int64_t most_samples = 100'000;
    command
        .add_option("--text",
                    options.text,
                    "UTF-8 text that lm continues and that needles are hidden in, instead of the "
                    "classic filler")
        ->type_name("FILE");
    command.add_option("--samples", options.samples, "samples per task and seed")
        ->type_name("N")
        ->check(
            CLI::Range(std::int64_t{1}, most_samples, fmt::format("from 1 to {}", most_samples)))
        ->capture_default_str();
    command.add_option("--seed", options.seeds, "draws keys, places and texts")
        ->type_name("N[,N...]")
        ->capture_default_str();
    add_token_option(
        command, "--context", options.context, 2, "tokens to prefill, at most, before a question");
    command
        .add_option("--depth", options.depth, "where the passkey stands, 0 to 1 (default: spread)")
        ->type_name("SHARE");
}

} // namespace

void add_eval(CLI::App& app, action& chosen) {
    auto options = std::make_shared<eval_options>();
    CLI::App* command =
        app.add_subcommand("eval", "Measure policies on many texts or questions, with intervals.");
    command->footer(
        "Texts are prefilled, compressed and continued as in `run`. Dialogues are prefilled and\n"
        "compressed, then asked; an answer is right if greedy decoding gives it exactly.\n"
        "Exactly one of --task, --windows and --dialogues says what is measured.\n"
        "A run with --resume FILE that was ended goes on where it was when it is started again.");
    options->common.add_to(*command);
    add_sources(*command, *options);
    add_task_options(*command, *options);
    command
        ->add_option("--mode",
                     options->mode,
                     "agnostic: policies see the context; aware: and the first question")
        ->type_name("MODE")
        ->capture_default_str();
    command->add_flag("--requests",
                      options->requests,
                      "ask each question alone, on a copy of the compressed cache");
    command
        ->add_option(
            "--against", options->against, "compare all policies with this one, sample by sample")
        ->type_name("P");
    command->add_option("--resume", options->resume, "keep finished rows here, and begin with them")
        ->type_name("FILE");
    command->callback([options, command, &chosen] {
        chosen = [options, command] { return eval_command(*options, *command); };
    });
}

} // namespace lab
