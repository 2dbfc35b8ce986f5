// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"

#include "error.hpp"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <optional>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace lab {
namespace {

/// No text or list of windows comes near; /dev/zero has to end somewhere [bytes].
constexpr std::size_t largest_file = std::size_t{1} << 28;

/// The signal that came in a signal_delay.
std::atomic<int> held_back = 0;
static_assert(std::atomic<int>::is_always_lock_free);

extern "C" void hold_back(int signal) { held_back = signal; }

/// Whoever ends the program waits while this lives: what takes milliseconds is done wholly, and leaves nothing half done.
class signal_delay {
public:
    signal_delay() {
        struct sigaction later {};
        later.sa_handler = hold_back;
        later.sa_flags = SA_RESTART;
        for (std::size_t i = 0; i < signals.size(); ++i) {
            sigaction(signals[i], &later, &before_[i]);
        }
    }
    signal_delay(const signal_delay&) = delete;
    signal_delay& operator=(const signal_delay&) = delete;
    ~signal_delay() {
        for (std::size_t i = 0; i < signals.size(); ++i) {
            sigaction(signals[i], &before_[i], nullptr);
        }
        if (const int signal = held_back.exchange(0); signal != 0) {
            raise(signal);
        }
    }

private:
    static constexpr std::array signals{SIGINT, SIGTERM, SIGHUP};
    std::array<struct sigaction, signals.size()> before_{};
};

} // namespace

std::string read_file(const std::string& path) {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) {
        fail("file ", in_quotes(path), " is a folder");
    }
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        fail("file ", in_quotes(path), " cannot be read: ", std::strerror(errno));
    }
    std::string content;
    for (std::string block(std::size_t{1} << 20, '\0'); file && content.size() <= largest_file;) {
        file.read(block.data(), static_cast<std::streamsize>(block.size()));
        content.append(block, 0, static_cast<std::size_t>(file.gcount()));
    }
    if (content.size() > largest_file) {
        fail("file ",
             in_quotes(path),
             " goes on after ",
             largest_file,
             " bytes; longer ones are not read");
    }
    if (file.bad()) {
        fail("file ", in_quotes(path), " cannot be read to its end");
    }
    return content;
}

output_file::output_file(std::string path) : path_(std::move(path)) {
    std::error_code error;
    if (std::filesystem::is_directory(path_, error)) {
        fail("file ", in_quotes(path_.string()), " is a folder");
    }
    if (std::filesystem::is_symlink(path_, error)) {
        path_ = std::filesystem::weakly_canonical(path_, error);
    }
    const bool replaces =
        !std::filesystem::exists(path_, error) || std::filesystem::is_regular_file(path_, error);
    if (replaces) {
        temporary_ = path_.string() + fmt::format(".part-{}", getpid());
    }
    std::optional<signal_delay> whole;
    if (replaces) { // a pipe may wait for its reader, and whoever waits must be able to give up
        whole.emplace();
    }
    if (!std::ofstream(replaces ? temporary_ : path_, std::ios::binary | std::ios::app)) {
        fail("file ", in_quotes(path_.string()), " cannot be written: ", std::strerror(errno));
    }
    if (replaces) {
        std::filesystem::remove(temporary_, error);
    }
}

void output_file::commit(std::string_view content) {
    const bool replaces = !temporary_.empty();
    std::optional<signal_delay> whole;
    if (replaces) {
        whole.emplace();
    }
    std::ofstream file(replaces ? temporary_ : path_, std::ios::binary);
    file.write(content.data(), static_cast<std::streamsize>(content.size()));
    file.close();
    std::error_code error;
    if (file && replaces) {
        std::filesystem::rename(temporary_, path_, error);
    }
    if (!file || error) {
        std::error_code ignored;
        if (replaces) {
            std::filesystem::remove(temporary_, ignored);
        }
        fail("file ",
             in_quotes(path_.string()),
             " cannot be written: ",
             error ? error.message() : std::string("the disk did not take it"));
    }
}

} // namespace lab
