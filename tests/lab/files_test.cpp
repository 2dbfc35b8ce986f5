// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"
#include "window.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>

namespace lab {
namespace {

using testing::HasSubstr;

class Files : public testing::Test {
protected:
    Files() { std::filesystem::create_directories(folder_); }
    ~Files() override { std::filesystem::remove_all(folder_); }

    [[nodiscard]] std::string path(const std::string& name) const {
        return (folder_ / name).string();
    }
    [[nodiscard]] std::string written(const std::string& content) const {
        std::ofstream(path("in.json"), std::ios::binary) << content;
        return path("in.json");
    }
    [[nodiscard]] std::string complaint(const std::string& content) const {
        try {
            static_cast<void>(read_windows(written(content)));
        } catch (const std::invalid_argument& error) {
            return error.what();
        }
        return "nothing was thrown";
    }

private:
    std::filesystem::path folder_ =
        std::filesystem::temp_directory_path() /
        ("kvcrush-files-" +
         std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
};

TEST_F(Files, WindowsAreRead) {
    const auto windows = read_windows(
        written(R"({"windows": [{"name": "a", "context": [0, 1], "continuation": [2, 3]}]})"));
    ASSERT_EQ(windows.size(), 1U);
    EXPECT_EQ(windows[0].name, "a");
    EXPECT_EQ(windows[0].continuation, (std::vector<int>{2, 3}));
}

TEST_F(Files, BadWindowsAreNamed) {
    EXPECT_THAT(complaint("{"), HasSubstr("is no JSON"));
    EXPECT_THAT(complaint("[]"), HasSubstr("no list \"windows\""));
    EXPECT_THAT(complaint(R"({"windows": []})"), HasSubstr("at least one entry"));
    EXPECT_THAT(complaint(R"({"windows": [3]})"), HasSubstr("window 0 is no object"));
    EXPECT_THAT(complaint(R"({"windows": [{"context": [1, 2]}]})"), HasSubstr("\"continuation\""));
    EXPECT_THAT(complaint(R"({"windows": [{"context": [1], "continuation": [1, 2]}]})"),
                HasSubstr("\"context\""));
    EXPECT_THAT(complaint(R"({"windows": [{"context": [1, "x"], "continuation": [1, 2]}]})"),
                HasSubstr("token ids"));
    EXPECT_THAT(complaint(R"({"windows": [{"context": [1, -2], "continuation": [1, 2]}]})"),
                HasSubstr("-2"));
    EXPECT_THAT(complaint(R"({"windows": [{"context": [1, 1e30], "continuation": [1, 2]}]})"),
                HasSubstr("token ids"));
    EXPECT_THAT(
        complaint(R"({"windows": [{"context": [1, 99999999999], "continuation": [1, 2]}]})"),
        HasSubstr("99999999999"));
}

TEST_F(Files, AFileThatCannotBeReadIsNamed) {
    EXPECT_THROW(static_cast<void>(read_file(path("missing"))), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(read_file(path(""))), std::invalid_argument) << "a folder";
}

TEST_F(Files, OutputGoesThroughLinksAndIntoDevices) {
    const std::string target = written("old");
    std::filesystem::create_symlink(target, path("link"));
    output_file(path("link")).commit("new");
    EXPECT_TRUE(std::filesystem::is_symlink(path("link")));
    EXPECT_EQ(read_file(target), "new");
    output_file("/dev/null").commit("gone");
    EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
    EXPECT_THROW(output_file("/dev/full").commit("lost"), std::invalid_argument);
    EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
}

TEST_F(Files, OutputAppearsWholeOrNotAtAll) {
    {
        const output_file abandoned(path("out.json"));
        EXPECT_TRUE(std::filesystem::is_empty(path(""))) << "what is killed leaves nothing behind";
    }
    EXPECT_TRUE(std::filesystem::is_empty(path("")));
    {
        output_file file(path("out.json"));
        EXPECT_FALSE(std::filesystem::exists(path("out.json")));
        file.commit("done");
    }
    EXPECT_EQ(read_file(path("out.json")), "done");
    EXPECT_THROW(output_file(path("nowhere/out.json")), std::invalid_argument);
    EXPECT_THROW(output_file(path("")), std::invalid_argument);
}

TEST_F(Files, WhoeverEndsTheProgramWaitsForOutputThatIsBeingWritten) {
    const std::string content(std::size_t{1} << 26, 'x');
    const auto num_files = [&] {
        return std::distance(std::filesystem::directory_iterator(path("")), {});
    };
    const auto end_while_writing = [&] {
        output_file file(path("out.json"));
        std::thread([&] {
            while (num_files() == 0) {
            }
            kill(getpid(), SIGTERM);
        }).detach();
        file.commit(content);
        std::this_thread::sleep_for(std::chrono::minutes(1));
    };
    EXPECT_EXIT(end_while_writing(), testing::KilledBySignal(SIGTERM), "");
    EXPECT_EQ(num_files(), 1);
    EXPECT_EQ(read_file(path("out.json")), content);
}

} // namespace
} // namespace lab
