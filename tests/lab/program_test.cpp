// SPDX-License-Identifier: Apache-2.0
// The program as a user meets it: bad input gets one line and exit code 2, and leaves nothing behind.
#include "model_path.hpp"
#include "run_program.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <spawn.h>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using lab_test::outcome;
using lab_test::read_whole;
using lab_test::run_in_shell;
using lab_test::run_lab;
using lab_test::scratch_folder;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

void expect_refusal_that(const std::string& arguments,
                         const testing::Matcher<std::string>& said,
                         const std::string& environment = "") {
    const outcome result = run_lab(arguments, environment);
    EXPECT_EQ(result.code, 2) << arguments << "\n" << result.output;
    EXPECT_THAT(result.output, said) << arguments;
    EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
}

void expect_refusal(const std::string& arguments, const std::string& text) {
    expect_refusal_that(arguments, testing::Matcher<std::string>(HasSubstr(text)));
}

std::string quoted_model() {
    return std::string("'").append(lab_test::require_model()).append("'");
}

/// A text of some 3000 tokens.
std::string numbered_lines() {
    std::string words;
    for (int i = 0; i < 400; ++i) {
        words += "line " + std::to_string(i) + " of a text. ";
    }
    return words;
}

TEST(Program, TeachesItself) {
    for (const char* arguments :
         {"--help", "run --help", "eval --help", "stream --help", "generate --help", "policies"}) {
        const outcome result = run_lab(arguments);
        EXPECT_EQ(result.code, 0) << arguments;
        EXPECT_GT(result.output.size(), 200U) << arguments;
    }
    EXPECT_THAT(run_lab("policies").output, HasSubstr("kvcrush(SCORER)"));
    EXPECT_THAT(run_lab("--version").output, HasSubstr("."));
}

TEST(Program, RefusesWhatItCannotDo) {
    const scratch_folder files;
    const std::string text = files.file("text.txt", "some words");
    const std::string no_model = files.file("model.gguf", "GGUFnot really");
    expect_refusal("", "subcommand");
    expect_refusal("fly", "fly");
    expect_refusal("run --text x", "--model is required");
    expect_refusal("run --model x --text x --contxt 5", "--contxt");
    expect_refusal("run --model x --text " + text + " --context many", "--context");
    expect_refusal("run --model x --text " + text + " --context 1", "--context");
    for (const char* context : {"-1", "18446744073709551615", "18446744073709551616"}) {
        expect_refusal("run --model x --text " + text + " --context " + context, "2 to 1000000000");
    }
    expect_refusal("run --model x --text " + text + " --policy snapvk", "snapvk");
    expect_refusal("run --model x --text " + text + " --keep-ratio 1.5", "(0, 1]");
    expect_refusal("run --model x --text " + text + " --keep-ratio nan", "(0, 1]");
    expect_refusal("run --model x --text " + text + " --cache f8", "f16, f32");
    expect_refusal("run --model x --text " + files.path("missing"), "cannot be read");
    expect_refusal("run --model x --text " + text + " --json " + files.path("no/where.json"),
                   "cannot be written");
    expect_refusal("run --model " + files.path("missing.gguf") + " --text " + text, "missing.gguf");
    expect_refusal("run --model " + no_model + " --text " + text, "model.gguf");
    expect_refusal("eval --model x --windows " + text, "is no JSON");
    expect_refusal("stream --model x", "--text is required");
    expect_refusal("stream --model x --text " + text + " --tokens 3", "--tokens");
    expect_refusal("stream --model x --text " + text + " --policy snapvk", "snapvk");
    expect_refusal("generate --model x --prompt hi --budget 10", "at least 36");
    expect_refusal("generate --model x --prompt hi --compress-every 0", "--compress-every");
}

TEST(Program, RefusesFilesWithoutAName) {
    for (const char* arguments : {"run --model x --text x --json ''",
                                  "run --model x --text ''",
                                  "run --model '' --text x",
                                  "stream --model x --text x --json ''",
                                  "eval --model x --task lm --json ''",
                                  "eval --model x --task lm --resume ''",
                                  "eval --model x --task lm --text ''",
                                  "eval --model x --windows ''",
                                  "eval --model x --dialogues ''",
                                  "report x.json --out ''"}) {
        expect_refusal(arguments, "the name of a file is empty");
    }
    expect_refusal("run --model x --text x --json=", "--json");
    expect_refusal("eval --model x --task lm --resume ''", "--resume");
}

TEST(Program, ComplainsInOneLineWhateverItIsGiven) {
    const scratch_folder files;
    const std::string text = files.file("text.txt", "some words");
    expect_refusal("run --model x --text x '--con\ntext' 5", "--con");
    expect_refusal("run --model x --text x --context '5\n6'", "--context");
    expect_refusal("run --text " + text + " --model '" + files.file("a\nb\x1B[1mc.gguf", "GGUFx") +
                       "'",
                   "a\\x0ab\\x1b[1mc.gguf");
    expect_refusal("generate --model x --prompt hi --policy all", "one policy at a time");
    expect_refusal("generate --model x --prompt hi --policy full,snapkv", "one policy at a time");
}

#if defined(_OPENMP) && !defined(__clang__)
TEST(Program, ItsThreadsWaitBrieflyUnlessTheUserSaysOtherwise) {
    const std::string show = "OMP_DISPLAY_ENV=verbose ";
    const auto started = [&](const std::string& environment) {
        return run_in_shell("unset OMP_WAIT_POLICY GOMP_SPINCOUNT KMP_BLOCKTIME KMP_LIBRARY; " +
                            show + environment + " '" + KVCRUSH_LAB_PROGRAM + "' --version")
            .output;
    };
    const std::string brief = "GOMP_SPINCOUNT = '3000'";
    EXPECT_THAT(started(""), HasSubstr(brief));
    EXPECT_THAT(started("GOMP_SPINCOUNT=77"),
                AllOf(HasSubstr("GOMP_SPINCOUNT = '77'"), Not(HasSubstr(brief))));
    EXPECT_THAT(started("OMP_WAIT_POLICY=active"),
                AllOf(HasSubstr("'ACTIVE'"), Not(HasSubstr(brief))));
}
#endif

TEST(Program, RefusesEndlessAndDeeplyNestedFiles) {
    const scratch_folder files;
    expect_refusal("eval --model x --windows /dev/zero", "goes on after");
    const std::string deep = std::string(200000, '[') + std::string(200000, ']');
    const std::string windows = files.file(
        "deep.json", R"({"windows": [{"context": [)" + deep + R"(, 1], "continuation": [1, 2]}]})");
    expect_refusal("eval --model x --windows " + windows, "token ids");
}

TEST(Program, DoesNotWriteOverWhatItReads) {
    const scratch_folder files;
    const std::string text = files.file("text.txt", "some words");
    expect_refusal("run --model x --text " + text + " --json " + text, "a file that is read");
    EXPECT_EQ(read_whole(text), "some words");
}

TEST(Program, SaysWhenItsOutputIsLost) {
    EXPECT_EQ(run_lab("policies >/dev/full").code, 2);
    EXPECT_EQ(run_lab("--help >/dev/full").code, 2);
}

TEST(Program, EvalNamesTheOptionTheValueAndWhatIsAllowed) {
    const scratch_folder files;
    const auto refused = [](const std::string& arguments, const auto&... parts) {
        expect_refusal_that("eval --model x " + arguments,
                            testing::Matcher<std::string>(AllOf(HasSubstr(parts)...)));
    };
    refused("--task passkeys",
            "--task is \"passkeys\"",
            "lm, passkey, multikey, multi_value, variable_tracking, common_words, all");
    refused("--task passkey,nothing", "--task is \"nothing\"", "lm, passkey");
    refused("--task passkey --mode awre", "--mode is \"awre\"", "agnostic, aware");
    refused("--task passkey --mode aware --requests", "--requests", "--mode agnostic only");
    refused("--task passkey --policy full,snapkv --against tova",
            "--against is \"tova\"",
            "one of --policy \"full,snapkv\"");
    refused("--task passkey --policy 'full,snapkv(window=16)' --against snapkv",
            "--against is \"snapkv\"",
            "written alike");
    refused("--task passkey --samples 0", "--samples", "range 1 to 100000");
    refused("--task passkey --samples -3", "--samples", "range 1 to 100000");
    refused("--task passkey --seed 1,x", "--seed is \"x\"", "whole numbers from 0");
    refused("--task passkey --depth 1.5", "--depth is 1.5", "0 to 1");
    refused("", "exactly one of --task, --windows, --dialogues", "there are 0");
    const std::string whole =
        R"({"windows": [{"name": "a", "context": [1, 2, 3], "continuation": [4, 5]}]})";
    const std::string good = files.file("good.json", whole);
    refused("--task passkey --windows " + good, "exactly one of", "there are 2");
    refused("--windows " + good + " --samples 3", "--samples", "--task only");
    refused("--windows " + good + " --mode aware", "--mode", "windows ask no questions");
}

TEST(Program, RefusesWindowsThatAreCutOff) {
    const scratch_folder files;
    const std::string whole =
        R"({"windows": [{"name": "a", "context": [1, 2, 3], "continuation": [4, 5]}]})";
    for (std::size_t length = 0; length < whole.size(); length += 7) {
        const std::string path = files.file("cut.json", whole.substr(0, length));
        expect_refusal_that(
            "eval --model x --windows " + path,
            testing::Matcher<std::string>(AllOf(HasSubstr(path), HasSubstr("no JSON"))));
    }
}

TEST(Program, SaysThatLmNeedsATextWhereItsOwnIsMissing) {
    const scratch_folder files;
    const std::string elsewhere = "KVCRUSH_LAB_SOURCES='" + files.path("nowhere") + "'";
    expect_refusal_that("eval --model x --task lm",
                        testing::Matcher<std::string>(AllOf(HasSubstr("task lm needs a text"),
                                                            HasSubstr("nowhere/prose.txt"),
                                                            HasSubstr("--text FILE"))),
                        elsewhere);
    EXPECT_THAT(run_lab("eval --help").output,
                AllOf(HasSubstr("prose.txt"), HasSubstr("KVCRUSH_LAB_SOURCES")));
}

TEST(ModelProgram, RefusesIdsOutsideTheVocabularyBeforeTheWork) {
    const scratch_folder files;
    const std::string windows =
        files.file("w.json",
                   R"({"windows": [{"name": "good", "context": [1, 2], "continuation": [1, 2]},
                        {"name": "bad", "context": [1, 49152], "continuation": [1, 2]}]})");
    expect_refusal("eval --model " + quoted_model() + " --windows " + windows, "window \"bad\"");
}

TEST(ModelProgram, RefusesTextsAndContextsThatDoNotFit) {
    const scratch_folder files;
    const std::string text = files.file("text.txt", "only a few words");
    const std::string broken = files.file("broken.txt", std::string("bad \xFF byte"));
    std::string long_text;
    for (int i = 0; i < 9000; ++i) {
        long_text += "word ";
    }
    const std::string model = "--model " + quoted_model();
    const std::string json = files.path("out.json");
    expect_refusal("run " + model + " --text " + text + " --context 64 --json " + json,
                   "tokens; --context 64 needs 192");
    EXPECT_FALSE(std::filesystem::exists(json)) << "nothing half written";
    expect_refusal("run " + model + " --text " + broken + " --context 64", "4");
    expect_refusal("run " + model + " --text " + files.file("long.txt", long_text) +
                       " --context 8192",
                   "8192");
    expect_refusal("run " + model + " --text " + files.path("long.txt") +
                       " --context 64 --keep-ratio 0.25",
                   "at least 36 are needed");
    expect_refusal("generate " + model + " --prompt ''", "--prompt is empty");
}

TEST(ModelProgram, WritesTheTableAndTheJsonContract) {
    const scratch_folder files;
    const std::string json = files.path("out.json");
    const outcome result = run_lab(
        "run --model " + quoted_model() + " --text " + files.file("text.txt", numbered_lines()) +
        " --context 256 --keep-ratio 0.5,0.25 --json " + json +
        " --policy full,random,snapkv,'kvcrush(snapkv,anchor=alternate,share=0.25)'");
    ASSERT_EQ(result.code, 0) << result.output;
    EXPECT_THAT(result.output, HasSubstr("kvcrush(snapkv,anchor=alternate,share=0.25)"));
    std::ifstream file(json);
    const nlohmann::json document = nlohmann::json::parse(file);
    for (const char* key : {"model", "machine", "arguments", "results"}) {
        EXPECT_TRUE(document.contains(key)) << key;
    }
    ASSERT_EQ(document["results"].size(), 2U * 7)
        << "one row per policy and ratio, once for the text, once as mean";
    for (const auto& row : document["results"]) {
        for (const char* key : {"task",       "mode",
                                "name",       "turn",
                                "policy",     "keep_ratio",
                                "context",    "kept_tokens_mean",
                                "bytes_full", "bytes_held",
                                "nll",        "nll_full",
                                "ppl_ratio",  "kld_mean",
                                "kld_p99",    "top1_agreement",
                                "accuracy",   "answer_nll",
                                "select_ms",  "compact_ms",
                                "prefill_ms", "decode_ms_per_token",
                                "samples",    "seed"}) {
            EXPECT_TRUE(row.contains(key)) << key;
        }
        if (row["policy"] == "snapkv" && row["keep_ratio"] == 0.25) {
            EXPECT_EQ(row["kept_tokens_mean"], 64.0);
            EXPECT_LT(row["bytes_held"].get<double>(), 0.26 * row["bytes_full"].get<double>());
        }
    }
}

TEST(ModelProgram, GeneratesOnABoundedCache) {
    const outcome whole = run_lab("generate --model " + quoted_model() +
                                  " --prompt 'The capital of France is' --max-tokens 20");
    EXPECT_EQ(whole.code, 0);
    EXPECT_THAT(whole.output, HasSubstr(" Paris."));
    const outcome bounded =
        run_lab("generate --model " + quoted_model() +
                " --prompt 'Once upon a time, in a small village by the sea,' --max-tokens 150"
                " --budget 48 --compress-every 8 --policy 'kvcrush(h2o)'");
    EXPECT_EQ(bounded.code, 0) << bounded.output;
    EXPECT_THAT(bounded.output, testing::ContainsRegex("held per kv head"));
    const outcome stored = run_lab("generate --model " + quoted_model() +
                                   " --prompt 'The capital of France is' --max-tokens 3"
                                   " --policy 'full+codec(k=q8_0,v=q8_0,window=0)'");
    EXPECT_THAT(stored.output, HasSubstr("compressed 1 times")) << "codecs need no budget";
}

TEST(ModelProgram, StreamsATextOnABoundedCache) {
    const scratch_folder files;
    const std::string json = files.path("out.json");
    const outcome result = run_lab(
        "stream --model " + quoted_model() + " --text " + files.file("text.txt", numbered_lines()) +
        " --prompt 100 --tokens 40 --budget 64 --compress-every 16 --policy full,snapkv"
        " --json " +
        json);
    ASSERT_EQ(result.code, 0) << result.output;
    const nlohmann::json document = nlohmann::json::parse(read_whole(json));
    ASSERT_EQ(document["results"].size(), 8U);
    for (const nlohmann::json& row : document["results"]) {
        EXPECT_EQ(row["task"], "stream");
        const bool full = row["policy"] == "full";
        EXPECT_EQ(row["kld_mean"] == 0.0, full);
        EXPECT_EQ(row["kept_tokens_mean"] == row["context"], full);
        EXPECT_GT(row["decode_ms_per_token"], 0.0);
    }
}

/// Rows of a result file.
std::vector<nlohmann::json>
rows_of(const nlohmann::json& document, const std::string& task, const std::string& policy) {
    std::vector<nlohmann::json> rows;
    for (const nlohmann::json& row : document.at("results")) {
        if (row.at("task") == task && row.at("policy") == policy) {
            rows.push_back(row);
        }
    }
    return rows;
}

TEST(ModelProgram, EvaluatesTasksAndMapsWhatTheFirstTextKeeps) {
    const scratch_folder files;
    const std::string json = files.path("out.json");
    const outcome result =
        run_lab("eval --model " + quoted_model() +
                " --task lm,passkey --samples 2 --context 160 --keep-ratio 0.5,0.25"
                " --policy full,snapkv,eight_times --against snapkv --json " +
                json);
    ASSERT_EQ(result.code, 0) << result.output;
    EXPECT_THAT(result.output,
                AllOf(HasSubstr("2 texts, 2 dialogues"), Not(HasSubstr("left out"))));
    const nlohmann::json document = nlohmann::json::parse(read_whole(json));
    EXPECT_EQ(document["num_layers"], 30);
    EXPECT_EQ(document["arguments"]["samples"], "2");
    EXPECT_EQ(document["arguments"]["text"], "prose.txt");
    for (const char* task : {"lm", "passkey"}) {
        EXPECT_EQ(rows_of(document, task, "full").size(), 2U + 1) << "two samples and their mean";
        EXPECT_EQ(rows_of(document, task, "snapkv").size(), 2 * (2U + 1)) << "at two ratios";
        EXPECT_EQ(rows_of(document, task, "eight_times").size(), 2U + 1) << "at its own ratio";
    }
    for (const nlohmann::json& row : rows_of(document, "lm", "snapkv")) {
        EXPECT_GT(row["kld_mean"], 0.0);
        EXPECT_EQ(row["seed"], 0);
        EXPECT_EQ(row["samples"], row["name"] == "mean" ? 2 : 1);
    }
    EXPECT_NE(rows_of(document, "lm", "full")[0]["nll"], rows_of(document, "lm", "full")[1]["nll"])
        << "two places of the text";

    const nlohmann::json& maps = document["kept_map"];
    ASSERT_EQ(maps.size(), 3U) << "one per policy, at its first ratio";
    std::string text;
    for (const nlohmann::json& map : maps) {
        EXPECT_EQ(map["name"], "lm-0-0");
        EXPECT_EQ(map["context"], 160);
        EXPECT_EQ(map["num_kv_heads"], 3);
        EXPECT_EQ(map["pieces"].size(), 160U);
        ASSERT_EQ(map["layers"].size(), 30U);
        for (const nlohmann::json& layer : map["layers"]) {
            ASSERT_EQ(layer.size(), 3U);
            for (const nlohmann::json& kept : layer) {
                if (map["policy"] == "full") {
                    EXPECT_TRUE(kept.is_null()) << "all";
                } else {
                    const auto tokens = kept.get<std::vector<std::size_t>>();
                    EXPECT_TRUE(std::is_sorted(tokens.begin(), tokens.end()));
                    ASSERT_EQ(tokens.size(), map["policy"] == "snapkv" ? 80U : 96U);
                    EXPECT_EQ(tokens[3], 3U) << "sinks stay";
                    EXPECT_EQ(tokens.back(), 159U);
                }
            }
        }
    }
    EXPECT_EQ(maps[0]["policy"], "full");
    EXPECT_EQ(maps[1]["keep_ratio"], 0.5);
    EXPECT_EQ(maps[2]["keep_ratio"], 0.6);
    for (const nlohmann::json& piece : maps[0]["pieces"]) {
        text += piece.get<std::string>();
    }
    const std::string before = "<|endoftext|>";
    EXPECT_THAT(text, testing::StartsWith(before));
    EXPECT_THAT(read_whole(KVCRUSH_TEST_DATA "/../../examples/lab/prose.txt"),
                HasSubstr(text.substr(before.size())));
}

TEST(ModelProgram, LeavesLmOutWhereItsTextIsMissingOrTooShort) {
    const scratch_folder files;
    const std::string base = "eval --model " + quoted_model() + " --policy full --samples 1 ";
    const outcome missing = run_lab(base + "--task lm,passkey --context 128",
                                    "KVCRUSH_LAB_SOURCES='" + files.path("nowhere") + "'");
    EXPECT_EQ(missing.code, 0) << missing.output;
    EXPECT_THAT(missing.output,
                AllOf(testing::StartsWith("lm is left out: "), HasSubstr("0 texts, 1 dialogues")));
    expect_refusal_that(base + "--task lm --context 7000",
                        testing::Matcher<std::string>(
                            AllOf(HasSubstr("prose.txt"), HasSubstr("--context 7000 needs"))));
    // A text that was asked for is never left out.
    expect_refusal(base + "--task lm,passkey --context 128 --text " +
                       files.file("short.txt", "Just a few words."),
                   "short.txt");
}

TEST(ModelProgram, AwarePoliciesSeeTheQuestion) {
    const scratch_folder files;
    const std::string json = files.path("out.json");
    const std::string base = "eval --model " + quoted_model() +
                             " --task passkey --samples 1 --context 200 --keep-ratio 0.4 "
                             "--policy full,snapkv --json " +
                             json + " --mode ";
    double context = 0.0;
    for (const std::string mode : {"agnostic", "aware"}) {
        const outcome result = run_lab(base + mode);
        ASSERT_EQ(result.code, 0) << result.output;
        EXPECT_THAT(result.output, HasSubstr("(" + mode + ")"));
        const nlohmann::json document = nlohmann::json::parse(read_whole(json));
        EXPECT_EQ(document["arguments"]["mode"], mode);
        for (const nlohmann::json& row : document["results"]) {
            EXPECT_EQ(row["mode"], mode);
            EXPECT_GT(row["context"].get<double>(), context) << "the question is part of it";
        }
        context = document["results"][0]["context"].get<double>();
        EXPECT_EQ(document["kept_map"][1]["context"], context) << "of the first dialogue";
        EXPECT_EQ(document["kept_map"][1]["name"], "passkey-0-0");
    }
}

TEST(ModelProgram, AKilledRunGoesOnWhereItWas) {
    const scratch_folder files;
    const std::string journal = files.path("journal");
    std::vector<std::string> words{KVCRUSH_LAB_PROGRAM,
                                   "eval",
                                   "--model",
                                   lab_test::require_model(),
                                   "--task",
                                   "lm,passkey",
                                   "--samples",
                                   "2",
                                   "--context",
                                   "128",
                                   "--keep-ratio",
                                   "0.5",
                                   "--policy",
                                   "full,snapkv,knorm"};
    std::string line;
    for (std::size_t i = 1; i < words.size(); ++i) {
        line.append("'").append(words[i]).append("' ");
    }
    const std::string fresh = files.path("fresh.json");
    ASSERT_EQ(run_lab(line + "--json " + fresh).code, 0);

    words.insert(words.end(), {"--resume", journal});
    std::vector<char*> arguments;
    for (std::string& word : words) {
        arguments.push_back(word.data());
    }
    arguments.push_back(nullptr);
    pid_t child = 0;
    ASSERT_EQ(posix_spawn(&child, arguments[0], nullptr, nullptr, arguments.data(), environ), 0);
    const auto lines = [&] {
        const std::string content = read_whole(journal);
        return std::count(content.begin(), content.end(), '\n');
    };
    int status = 0;
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    while (lines() < 4 && waitpid(child, &status, WNOHANG) == 0 &&
           std::chrono::steady_clock::now() < give_up) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "it was to be killed in the middle";
    const auto finished = lines() - 1; // the first line holds the settings
    ASSERT_GE(finished, 3);
    ASSERT_LT(finished, 12) << "2 samples of 2 tasks with 3 policies";
    std::ofstream(journal, std::ios::app) << R"({"key":"half a li)";

    const std::string resumed = files.path("resumed.json");
    const outcome rest = run_lab(line + "--resume " + journal + " --json " + resumed);
    ASSERT_EQ(rest.code, 0) << rest.output;
    EXPECT_THAT(
        rest.output,
        HasSubstr(std::to_string(finished) + " of 12 rows were finished by an earlier run"));
    EXPECT_THAT(run_lab(line + "--resume " + journal).output, HasSubstr("12 of 12 rows"));

    const nlohmann::json one = nlohmann::json::parse(read_whole(fresh));
    const nlohmann::json two = nlohmann::json::parse(read_whole(resumed));
    ASSERT_EQ(one["results"].size(), two["results"].size());
    for (std::size_t i = 0; i < one["results"].size(); ++i) {
        for (const char* key : {"task",
                                "name",
                                "policy",
                                "keep_ratio",
                                "kept_tokens_mean",
                                "bytes_held",
                                "nll",
                                "kld_mean",
                                "accuracy",
                                "answer_nll",
                                "samples",
                                "lo",
                                "hi"}) {
            EXPECT_EQ(one["results"][i][key], two["results"][i][key]) << key << " of row " << i;
        }
    }
    EXPECT_EQ(one["kept_map"], two["kept_map"]);
    expect_refusal_that(line + "--cache f32 --resume " + journal,
                        testing::Matcher<std::string>(
                            AllOf(HasSubstr("another cache"), HasSubstr("f16"), HasSubstr("f32"))));
}

TEST(ModelProgram, RunHoldsAQuarterOfTheBytesWithFourTimes) {
    const scratch_folder files;
    const std::string json = files.path("out.json");
    const outcome result = run_lab(
        "run --model " + quoted_model() + " --text " + files.file("text.txt", numbered_lines()) +
        " --context 512 --keep-ratio 0.5,0.25 --policy 'full,four_times,four_times(seed=1)'"
        " --json " +
        json);
    ASSERT_EQ(result.code, 0) << result.output;
    const nlohmann::json document = nlohmann::json::parse(read_whole(json));
    ASSERT_EQ(document["results"].size(), 2U * 3) << "keep ratios do nothing to a goal in bytes";
    for (const nlohmann::json& row : document["results"]) {
        if (row["policy"] != "full") {
            EXPECT_EQ(row["keep_ratio"], 1.0);
            EXPECT_EQ(row["kept_tokens_mean"], 512.0);
            EXPECT_GT(row["bytes_held"].get<double>(), 0.2 * row["bytes_full"].get<double>());
            EXPECT_LT(row["bytes_held"].get<double>(), 0.26 * row["bytes_full"].get<double>());
            EXPECT_LT(row["kld_mean"], 0.05);
        }
    }
    expect_refusal("run --model x --text " + files.path("text.txt") + " --policy 'four_times(5)'",
                   "four_times");
    expect_refusal("run --model x --text " + files.path("text.txt") + " --policy five_times",
                   "five_times");
}

} // namespace
