// SPDX-License-Identifier: Apache-2.0
#include "journal.hpp"

#include "error.hpp"
#include "files.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <string_view>
#include <sys/file.h>
#include <unistd.h>
#include <utility>

namespace lab {
namespace {

constexpr const char* settings_field = "kvcrush_lab_journal";

[[nodiscard]] std::string as_line(const nlohmann::json& value) {
    return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

[[nodiscard]] std::string shown(const nlohmann::json& settings, const std::string& key) {
    return settings.contains(key) ? settings[key].dump() : "nothing";
}

void require_same(const nlohmann::json& written,
                  const nlohmann::json& wanted,
                  const std::string& file) {
    nlohmann::json all = written;
    all.update(wanted);
    for (const auto& [key, value] : all.items()) {
        if (shown(written, key) != shown(wanted, key)) {
            fail(file,
                 " was written by a run with another ",
                 key,
                 ": ",
                 in_quotes(shown(written, key)),
                 ", not ",
                 in_quotes(shown(wanted, key)),
                 "; resume with the same or name another file");
        }
    }
}

} // namespace

journal::journal(std::string path, nlohmann::json settings) : path_(std::move(path)) {
    const std::string file = "journal " + in_quotes(path_);
    std::error_code error;
    if (std::filesystem::exists(path_, error) && !std::filesystem::is_regular_file(path_, error)) {
        fail(file, " is no ordinary file");
    }
    file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file_ < 0) {
        fail(file, " cannot be written: ", std::strerror(errno));
    }
    try {
        if (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
            fail(file, " is in use by another run");
        }
        read(read_file(path_), settings);
    } catch (...) {
        ::close(file_);
        throw;
    }
}

journal::~journal() { ::close(file_); }

void journal::read(const std::string& content, const nlohmann::json& settings) {
    const std::string file = "journal " + in_quotes(path_);
    const nlohmann::json first_line = {{settings_field, settings}};
    const std::string beginning = std::string("{\"") + settings_field + "\":";
    const std::string_view start = std::string_view(content).substr(0, beginning.size());
    if (start != std::string_view(beginning).substr(0, start.size())) {
        fail(file, " is another kind of file; it is not overwritten");
    }
    // What follows the last line break was not finished.
    const std::size_t finished = content.rfind('\n') + 1; // npos + 1 is 0
    std::size_t number = 0;
    for (std::size_t at = 0; at < finished; ++number) {
        const std::size_t end = content.find('\n', at);
        const nlohmann::json line =
            nlohmann::json::parse(content.begin() + static_cast<std::ptrdiff_t>(at),
                                  content.begin() + static_cast<std::ptrdiff_t>(end),
                                  nullptr,
                                  false);
        at = end + 1;
        const bool good = number == 0 ? line.is_object() && line.contains(settings_field) &&
                                            line[settings_field].is_object()
                                      : line.is_object() && line.contains("key") &&
                                            line["key"].is_string() && line.contains("result");
        if (!good) {
            fail(file, " is broken at line ", number + 1);
        }
        if (number == 0) {
            require_same(line[settings_field], settings, file);
        } else {
            results_[line["key"].get<std::string>()] = line["result"];
        }
    }
    if (finished < content.size() && ::ftruncate(file_, static_cast<off_t>(finished)) != 0) {
        fail(file, " cannot be written: ", std::strerror(errno));
    }
    if (number == 0) {
        write_line(first_line);
    }
}

const nlohmann::json* journal::find(const std::string& key) const {
    const auto found = results_.find(key);
    return found == results_.end() ? nullptr : &found->second;
}

void journal::add(const std::string& key, nlohmann::json result) {
    write_line({{"key", key}, {"result", result}});
    results_[key] = std::move(result);
}

void journal::write_line(const nlohmann::json& line) {
    const std::string text = as_line(line);
    for (std::size_t done = 0; done < text.size();) {
        const ssize_t written = ::write(file_, text.data() + done, text.size() - done);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            fail("journal ", in_quotes(path_), " cannot be written: ", std::strerror(errno));
        }
        done += static_cast<std::size_t>(written);
    }
}

} // namespace lab
