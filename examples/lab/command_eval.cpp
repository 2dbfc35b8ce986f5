// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/config.hpp>

#include "command_options.hpp"
#include "commands.hpp"
#include "error.hpp"
#include "evaluation.hpp"
#include "evaluation_report.hpp"
#include "filler.hpp"
#include "numbers.hpp"
#include "progress.hpp"
#include "task_generators.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
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
    for (const std::string& name : split_at_commas(list)) {
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
    for (const std::string& text : split_at_commas(list)) {
        std::uint64_t seed = 0;
        if (!parse_number(text, seed)) {
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

/// A text, and the file it came from.
struct text_file {
    std::string path{};
    std::string content{};
    /// The lab's own, which was not asked for by name.
    bool own = false;
};

/// The lab's own text lies in KVCRUSH_LAB_SOURCES, or in the folder that this program was compiled from.
[[nodiscard]] std::string own_text_path() {
    const char* moved = std::getenv("KVCRUSH_LAB_SOURCES");
    return (std::filesystem::path(moved == nullptr ? KVCRUSH_LAB_SOURCES : moved) / "prose.txt")
        .string();
}

/// Its first paragraph says where it comes from.
[[nodiscard]] text_file read_own_text(std::string path) {
    const std::string content = read_file(path);
    const std::size_t end = content.find("\n\n");
    return {std::move(path), end == std::string::npos ? content : content.substr(end + 2), true};
}

void leave_lm_out(chosen_tasks& tasks, const std::string& why) {
    if (tasks.retrieval.empty()) {
        fail("task lm needs a text to go on with: ", why, "; --text FILE names another");
    }
    fmt::print("lm is left out: {}; --text FILE names another text\n", why);
    tasks.lm = false;
}

/// What --text names; else the lab's own text, if lm needs one. Without it, lm is left out.
[[nodiscard]] text_file find_text(const eval_options& options, chosen_tasks& tasks) {
    if (!options.text.empty()) {
        return {options.text, read_file(options.text)};
    }
    if (!tasks.lm) {
        return {};
    }
    const std::string path = own_text_path();
    std::error_code error;
    if (!std::filesystem::is_regular_file(path, error)) {
        leave_lm_out(tasks,
                     fmt::format("{} is missing, and KVCRUSH_LAB_SOURCES may say which folder "
                                 "has it",
                                 in_quotes(path)));
        return {};
    }
    return read_own_text(path);
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

void require_policy(const std::vector<policy>& policies, const eval_options& options) {
    const std::string& wanted = options.against;
    const bool found = std::any_of(
        policies.begin(), policies.end(), [&](const policy& how) { return how.text == wanted; });
    if (!wanted.empty() && !found) {
        fail("--against is ",
             in_quotes(wanted),
             "; it must be one of --policy ",
             in_quotes(options.common.policies),
             ", written alike");
    }
}

/// The samples of --task.
class sample_maker {
public:
    sample_maker(const eval_options& options, const tokenizer& words)
        : options_(options), words_(words) {}

    void make(chosen_tasks tasks, const text_file& text, evaluation& all) const {
        const std::vector<std::uint64_t> seeds = parse_seeds(options_.seeds);
        if (tasks.lm) {
            try {
                make_texts(seeds, text, all);
            } catch (const input_error& error) {
                const std::string why =
                    fmt::format("file {}: {}", in_quotes(text.path), error.what());
                if (!text.own) {
                    fail(why);
                }
                leave_lm_out(tasks, why);
            }
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

    [[nodiscard]] static filler named_filler(const text_file& text) {
        try {
            return filler_of(text.content);
        } catch (const input_error& error) {
            fail("file ", in_quotes(text.path), ": ", error.what());
        }
    }

    void make_texts(const std::vector<std::uint64_t>& seeds,
                    const text_file& text,
                    evaluation& all) const {
        const std::vector<int> ids = words_.encode(text.content);
        const std::string origin = text.own ? fingerprint(text.content) : "";
        for_each_sample(seeds, [&](const task_options& options, std::size_t index) {
            all.texts.push_back(
                {"lm", make_window(options, ids, index), options.seed, index, origin});
        });
    }

    const eval_options& options_;
    const tokenizer& words_;
};

[[nodiscard]] std::vector<std::pair<std::string, std::string>>
said(const eval_options& options, const std::string& mode, const text_file& text) {
    std::vector<std::pair<std::string, std::string>> arguments;
    const auto add = [&](const char* name, const std::string& value) {
        if (!value.empty()) {
            arguments.emplace_back(name, value);
        }
    };
    add("windows", options.windows);
    add("dialogues", options.dialogues);
    add("task", options.task);
    add("text", text.own ? std::filesystem::path(text.path).filename().string() : text.path);
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

[[nodiscard]] nlohmann::json kept_map_of(const evaluation& all, const loaded_model& loaded) {
    progress_bar bar("mapping");
    const kept_maps kept = map_first_sample(
        all, loaded.model, [&](double part, double total) { bar.show(part, total); });
    std::vector<std::string> pieces;
    for (const int id : kept.tokens) {
        pieces.emplace_back(loaded.tokenizer.token_bytes(id));
    }
    return json_of(kept, pieces);
}

int eval_command(const eval_options& options, const CLI::App& command) {
    check_combination(options, command);
    evaluation all;
    all.plan = options.common.parse();
    all.mode = options.mode == "aware" ? visibility::aware : visibility::agnostic;
    all.style = options.requests ? conversation::requests : conversation::turns;
    require_policy(all.plan.policies, options);
    chosen_tasks tasks = options.task.empty() ? chosen_tasks{} : parse_tasks(options.task);
    static_cast<void>(parse_seeds(options.seeds));
    const text_file text = find_text(options, tasks);
    if (!options.windows.empty()) {
        std::vector<window> windows = read_windows(options.windows);
        for (std::size_t i = 0; i < windows.size(); ++i) {
            all.texts.push_back({"windows", std::move(windows[i]), std::nullopt, i});
        }
    }
    if (!options.dialogues.empty()) {
        all.dialogues = read_dialogues(options.dialogues);
    }
    const std::unique_ptr<output_file> json =
        options.common.open_json({options.text, options.windows, options.dialogues});
    const loaded_model loaded(options.common.model);
    loaded.prepare(all.plan);
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
    nlohmann::json parts = {{"results", json_of(results, mode)},
                            {"num_layers", loaded.model.config().num_layers}};
    if (!options.against.empty()) {
        const std::vector<comparison> comparisons = compare_with(results, options.against);
        fmt::print("{}", table_of(comparisons));
        parts["comparisons"] = json_of(comparisons);
    }
    if (json) {
        parts["kept_map"] = kept_map_of(all, loaded);
        const bool unused = text.own && all.texts.empty();
        write_document(options.common,
                       said(options, mode, unused ? text_file{} : text),
                       std::move(parts),
                       *json);
    }
    return 0;
}

void add_sources(CLI::App& command, eval_options& options) {
    command.add_option("--task", options.task, fmt::format("samples to make: {}", task_names))
        ->type_name("T[,T...]");
    add_file_option(
        command,
        "--windows",
        options.windows,
        "JSON: {\"windows\": [{\"name\", \"context\": [ids], \"continuation\": [ids]}]}");
    add_file_option(command,
                    "--dialogues",
                    options.dialogues,
                    "JSON: {\"dialogues\": [{\"name\", \"context\": [ids], \"turns\": "
                    "[{\"question\": [ids], \"answer\": [ids]}]}]}");
}

void add_task_options(CLI::App& command, eval_options& options) {
    constexpr std::int64_t most_samples = 100'000;
    add_file_option(command,
                    "--text",
                    options.text,
                    "UTF-8 text that lm continues and that needles are hidden in, instead of the "
                    "lab's own (public-domain prose) and the classic filler");
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
        "Without --text, lm goes on with prose.txt in the folder that this program was compiled\n"
        "from, or in KVCRUSH_LAB_SOURCES=FOLDER.\n"
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
    add_file_option(
        *command, "--resume", options->resume, "keep finished rows here, and begin with them");
    command->callback([options, command, &chosen] {
        chosen = [options, command] { return eval_command(*options, *command); };
    });
}

} // namespace lab
