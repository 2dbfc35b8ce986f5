// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a run has finished, so that the next one need not do it again.
#pragma once

#include <nlohmann/json.hpp>

#include <cstddef>
#include <map>
#include <string>

namespace lab {

/// A file of JSON lines: first the settings that all results depend on, then {"key", "result"} for each finished piece.
/// A line that a killed run left half written is dropped. Not copyable; one process at a time.
class journal {
public:
    /// Reads what is there, or begins a new file.
    /// @throws input_error if the file is another thing, was written with other settings (naming the first that
    ///         differs), is in use, or cannot be written; it is then unchanged
    journal(std::string path, nlohmann::json settings);
    journal(const journal&) = delete;
    journal& operator=(const journal&) = delete;
    ~journal();

    /// @return the result of that key, or nullptr
    [[nodiscard]] const nlohmann::json* find(const std::string& key) const;
    [[nodiscard]] std::size_t size() const noexcept { return results_.size(); }

    /// Hands the line to the system before it returns: a killed program loses nothing.
    /// @throws input_error if the disk does not take it
    void add(const std::string& key, nlohmann::json result);

private:
    void read(const std::string& content, const nlohmann::json& settings);
    void write_line(const nlohmann::json& line);

    std::string path_;
    int file_ = -1;
    std::map<std::string, nlohmann::json> results_;
};

} // namespace lab
