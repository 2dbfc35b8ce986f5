// SPDX-License-Identifier: Apache-2.0
// The program itself, stopped at any moment.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace {

TEST(LlamaProgram, AKilledRunLeavesTheFileThatWasThere) {
    const char* const model = std::getenv("KVCRUSH_MODEL");
    if (model == nullptr || *model == '\0') {
        GTEST_SKIP() << "KVCRUSH_MODEL names no model";
    }
    const auto folder =
        std::filesystem::temp_directory_path() / ("kvcrush-client-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder);
    const std::string json = folder / "results.json";
    std::ofstream(json) << "before";
    for (const int wait_ms : {50, 400, 1500}) {
        const pid_t child = fork();
        if (child == 0) {
            static_cast<void>(std::freopen("/dev/null", "w", stdout));
            execl(KVCRUSH_LLAMA_PROGRAM,
                  KVCRUSH_LLAMA_PROGRAM,
                  "run",
                  "--model",
                  model,
                  "--text",
                  KVCRUSH_PROSE,
                  "--context",
                  "320",
                  "--policy",
                  "snapkv,knorm,random",
                  "--json",
                  json.c_str(),
                  nullptr);
            _exit(127);
        }
        ASSERT_GT(child, 0);
        std::this_thread::sleep_for(std::chrono::milliseconds(wait_ms));
        kill(child, SIGKILL);
        int status = 0;
        waitpid(child, &status, 0);
        std::ifstream in(json);
        const std::string content((std::istreambuf_iterator<char>(in)), {});
        EXPECT_TRUE(content == "before" || content.back() == '\n')
            << "all of the old or all of the new";
        EXPECT_FALSE(content.empty());
        EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == 127);
    }
    std::filesystem::remove_all(folder);
}

} // namespace
