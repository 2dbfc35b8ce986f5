// SPDX-License-Identifier: Apache-2.0
// The program as a user meets it: bad input gets one line and exit code 2, and leaves nothing behind.
#include "model_path.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using testing::HasSubstr;

struct outcome {
    int code = -1;
    std::string output;
};

/// Runs the program with both streams together.
outcome run(const std::string& arguments) {
    outcome result;
    const std::string command = "'" + std::string(KVCRUSH_LAB_PROGRAM) + "' " + arguments + " 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) {
        return result;
    }
    std::array<char, 4096> buffer{};
    while (std::fgets(buffer.data(), static_cast<int>(buffer.size()), pipe) != nullptr) {
        result.output += buffer.data();
    }
    const int status = pclose(pipe);
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return result;
}

void expect_refusal(const std::string& arguments, const std::string& text) {
    const outcome result = run(arguments);
    EXPECT_EQ(result.code, 2) << arguments << "\n" << result.output;
    EXPECT_THAT(result.output, HasSubstr(text)) << arguments;
    EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
}

std::string quoted_model() { return "'" + lab_test::require_model() + "'"; }

class folder {
public:
    folder()
        : path_(std::filesystem::temp_directory_path() /
                ("kvcrush-program-test-" + std::to_string(getpid()))) {
        std::filesystem::remove_all(path_);
        std::filesystem::create_directories(path_);
    }
    ~folder() { std::filesystem::remove_all(path_); }
    [[nodiscard]] std::string file(const std::string& name, const std::string& content) const {
        std::ofstream(path_ / name, std::ios::binary) << content;
        return (path_ / name).string();
    }
    [[nodiscard]] std::string path(const std::string& name) const {
        return (path_ / name).string();
    }

private:
    std::filesystem::path path_;
};

TEST(Program, TeachesItself) {
    for (const char* arguments :
         {"--help", "run --help", "eval --help", "generate --help", "policies"}) {
        const outcome result = run(arguments);
        EXPECT_EQ(result.code, 0) << arguments;
        EXPECT_GT(result.output.size(), 200U) << arguments;
    }
    EXPECT_THAT(run("policies").output, HasSubstr("kvcrush(SCORER)"));
    EXPECT_THAT(run("--version").output, HasSubstr("."));
}

TEST(Program, RefusesWhatItCannotDo) {
    const folder files;
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
    expect_refusal("generate --model x --prompt hi --budget 10", "at least 36");
    expect_refusal("generate --model x --prompt hi --compress-every 0", "--compress-every");
}

TEST(Program, RefusesEndlessAndDeeplyNestedFiles) {
    const folder files;
    expect_refusal("eval --model x --windows /dev/zero", "goes on after");
    const std::string deep = std::string(200000, '[') + std::string(200000, ']');
    const std::string windows = files.file(
        "deep.json", R"({"windows": [{"context": [)" + deep + R"(, 1], "continuation": [1, 2]}]})");
    expect_refusal("eval --model x --windows " + windows, "token ids");
}

TEST(Program, SaysWhenItsOutputIsLost) {
    EXPECT_EQ(run("policies >/dev/full").code, 2);
    EXPECT_EQ(run("--help >/dev/full").code, 2);
}

TEST(ModelProgram, RefusesIdsOutsideTheVocabularyBeforeTheWork) {
    const folder files;
    const std::string windows =
        files.file("w.json",
                   R"({"windows": [{"name": "good", "context": [1, 2], "continuation": [1, 2]},
                        {"name": "bad", "context": [1, 49152], "continuation": [1, 2]}]})");
    expect_refusal("eval --model " + quoted_model() + " --windows " + windows, "window \"bad\"");
}

TEST(ModelProgram, RefusesTextsAndContextsThatDoNotFit) {
    const folder files;
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
    const folder files;
    std::string words;
    for (int i = 0; i < 400; ++i) {
        words += "line " + std::to_string(i) + " of a text. ";
    }
    const std::string json = files.path("out.json");
    const outcome result =
        run("run --model " + quoted_model() + " --text " + files.file("text.txt", words) +
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
    const outcome whole = run("generate --model " + quoted_model() +
                              " --prompt 'The capital of France is' --max-tokens 20");
    EXPECT_EQ(whole.code, 0);
    EXPECT_THAT(whole.output, HasSubstr(" Paris."));
    const outcome bounded =
        run("generate --model " + quoted_model() +
            " --prompt 'Once upon a time, in a small village by the sea,' --max-tokens 150"
            " --budget 48 --compress-every 8 --policy 'kvcrush(h2o)'");
    EXPECT_EQ(bounded.code, 0) << bounded.output;
    EXPECT_THAT(bounded.output, testing::ContainsRegex("held per kv head"));
}

} // namespace
