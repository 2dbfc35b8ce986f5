// SPDX-License-Identifier: Apache-2.0
/// @file
/// Where tests find the real model and the recorded answers.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace lab_test {

inline std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
}

/// The place where examples/fetch_model.sh puts the model, unless KVCRUSH_MODEL names another.
inline std::string model_path() {
    if (const std::string path = environment("KVCRUSH_MODEL"); !path.empty()) {
        return path;
    }
    std::string cache = environment("KVCRUSH_CACHE");
    if (cache.empty()) {
        const std::string base = environment("XDG_CACHE_HOME");
        cache = (base.empty() ? environment("HOME") + "/.cache" : base) + "/kvcrush";
    }
    return cache + "/SmolLM2-135M-Instruct.Q4_1.gguf";
}

/// @throws std::runtime_error, so that a test without its model fails and says what to do
inline std::string require_model() {
    const std::string path = model_path();
    if (!std::filesystem::is_regular_file(path)) {
        throw std::runtime_error("the model " + path + " is missing; run examples/fetch_model.sh");
    }
    return path;
}

inline nlohmann::json known_answer(const std::string& file) {
    const std::string path = std::string(KVCRUSH_TEST_DATA) + "/" + file;
    std::ifstream in(path);
    if (!in) {
        throw std::runtime_error("cannot read " + path);
    }
    return nlohmann::json::parse(in);
}

} // namespace lab_test
