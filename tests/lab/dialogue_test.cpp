// SPDX-License-Identifier: Apache-2.0
#include "dialogue.hpp"
#include "error.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <unistd.h>

namespace lab {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Dialogues : public testing::Test {
protected:
    ~Dialogues() override { std::filesystem::remove(path_); }

    [[nodiscard]] std::vector<dialogue> read(const std::string& content) const {
        std::ofstream(path_, std::ios::binary) << content;
        return read_dialogues(path_.string());
    }
    void expect_refusal(const std::string& content, const std::string& reason) const {
        try {
            static_cast<void>(read(content));
            ADD_FAILURE() << "accepted: " << content;
        } catch (const input_error& error) {
            EXPECT_THAT(error.what(), HasSubstr(reason)) << content;
            EXPECT_THAT(error.what(), HasSubstr("dialogues-test")) << "names the file";
            EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
        }
    }

private:
    std::filesystem::path path_ = std::filesystem::temp_directory_path() /
                                  ("dialogues-test-" + std::to_string(getpid()) + ".json");
};

TEST_F(Dialogues, AreReadInOrder) {
    const auto dialogues = read(R"({"about": "x", "dialogues": [
        {"name": "passkey-12", "context": [1, 2], "turns": [{"question": [3], "answer": [4, 5]}]},
        {"context": [6], "turns": [{"question": [7], "answer": [8]},
                                   {"question": [9, 10], "answer": [11], "alone": [10]}]}]})");
    ASSERT_EQ(dialogues.size(), 2U);
    EXPECT_EQ(dialogues[0].name, "passkey-12");
    EXPECT_EQ(dialogues[0].task, "passkey");
    EXPECT_EQ(dialogues[0].index, 0U);
    EXPECT_FALSE(dialogues[0].seed.has_value());
    EXPECT_THAT(dialogues[0].context, ElementsAre(1, 2));
    ASSERT_EQ(dialogues[0].turns.size(), 1U);
    EXPECT_THAT(dialogues[0].turns[0].question, ElementsAre(3));
    EXPECT_THAT(dialogues[0].turns[0].answer, ElementsAre(4, 5));
    EXPECT_EQ(dialogues[1].name, "1");
    EXPECT_EQ(dialogues[1].task, "dialogues");
    EXPECT_EQ(dialogues[1].index, 1U);
    ASSERT_EQ(dialogues[1].turns.size(), 2U);
    EXPECT_TRUE(dialogues[1].turns[0].alone.empty());
    EXPECT_THAT(dialogues[1].turns[1].alone, ElementsAre(10));
}

TEST_F(Dialogues, AreNamedByTheirTaskOnlyIfTheNameIsPlain) {
    const auto task = [&](const std::string& name) {
        return read(R"({"dialogues": [{"name": ")" + name +
                    R"(", "context": [1], "turns": [{"question": [1], "answer": [1]}]}]})")
            .front()
            .task;
    };
    EXPECT_EQ(task("multi_key-0"), "multi_key");
    EXPECT_EQ(task("a-b-7"), "a-b");
    for (const char* name : {"", "7", "-7", "name", "name-", "name-x", "two words-1", "a\\n-1"}) {
        EXPECT_EQ(task(name), "dialogues") << name;
    }
}

TEST_F(Dialogues, AreRefusedWithFileEntryAndField) {
    expect_refusal("", "is no JSON");
    expect_refusal("{", "is no JSON");
    for (const char* text : {"[]", "3", "{}", R"({"dialogues": []})", R"({"dialogues": {}})"}) {
        expect_refusal(text, "no list \"dialogues\"");
    }
    const auto with = [](const std::string& entry) { return R"({"dialogues": [)" + entry + "]}"; };
    const std::string good = R"({"context": [1], "turns": [{"question": [1], "answer": [1]}]})";
    expect_refusal(with(good + ", 3"), "dialogue 1 is no object");
    expect_refusal(with(R"({"name": 3})"), "dialogue 0: \"name\" is no text");
    expect_refusal(with(R"({"name": "x"})"), "dialogue 0 (\"x\") has no list \"context\"");
    expect_refusal(with(R"({"context": []})"), "no list \"context\"");
    expect_refusal(with(R"({"context": [1]})"), "dialogue 0 has no list \"turns\"");
    expect_refusal(with(R"({"context": [1], "turns": []})"), "no list \"turns\"");
    expect_refusal(with(R"({"context": [1], "turns": [3]})"), "turn 1 is no object");
    expect_refusal(with(R"({"context": [1], "turns": [{"answer": [1]}]})"),
                   "turn 1 has no list \"question\"");
    expect_refusal(with(R"({"context": [1], "turns": [{"question": [1], "answer": []}]})"),
                   "turn 1 has no list \"answer\"");
    expect_refusal(with(R"({"context": [1], "turns": [{"question": [1], "answer": [1]},
                                                       {"question": [1], "answer": ["a"]}]})"),
                   "turn 2: \"answer\" holds");
    expect_refusal(
        with(R"({"context": [1], "turns": [{"question": [1], "answer": [1], "alone": 3}]})"),
        "no list \"alone\"");
    for (const char* id : {"-1", "1.5", "null", "true", "[1]", "{}", "2147483648", "1e30"}) {
        expect_refusal(with(std::string(R"({"context": [1, )") + id + R"(], "turns": []})"),
                       "token ids are whole numbers from 0");
    }
}

TEST_F(Dialogues, NeedAFile) {
    EXPECT_THROW(static_cast<void>(read_dialogues("/no/such/dialogues.json")), input_error);
    EXPECT_THROW(static_cast<void>(read_dialogues("/tmp")), input_error);
}

} // namespace
} // namespace lab
