// SPDX-License-Identifier: Apache-2.0
#include "even_policies.hpp"

#include <kvcrush/allocation/uniform.hpp>
#include <kvcrush/text/catalogue.hpp>

#include "error.hpp"

#include <fmt/format.h>

#include <utility>

namespace client {

namespace {

/// Methods that are nothing but a choice of other numbers for each head.
[[nodiscard]] bool is_uneven_by_nature(const kvcrush::recipe& how) {
    return how.model_allocator &&
           kvcrush::catalogue::whole_models::contains(how.model_allocator.policy_name());
}

/// Divides the budget evenly.
/// @return what divided it before, empty if it was even
[[nodiscard]] std::string divide_evenly(kvcrush::recipe& how) {
    std::string dropped;
    if (how.model_allocator) {
        dropped = how.model_allocator.policy_name();
    } else if (how.allocator.policy_name() != kvcrush::uniform_allocator::name) {
        dropped = how.allocator.policy_name();
    }
    how.allocator = kvcrush::uniform_allocator{};
    how.model_allocator = {};
    return dropped;
}

} // namespace

even_policies make_even(std::vector<lab::policy> policies, bool leaves_out) {
    even_policies result;
    for (lab::policy& own : policies) {
        if (is_uneven_by_nature(own.how)) {
            if (!leaves_out) {
                lab::fail(
                    "policy ",
                    lab::in_quotes(own.text),
                    " chooses another number of rows for each head; llama.cpp's state has one "
                    "number for all; allowed: policies that score tokens");
            }
            result.notes.push_back(fmt::format(
                "{}: left out, it chooses another number of rows for each head", own.text));
            continue;
        }
        const std::string dropped = divide_evenly(own.how);
        if (!dropped.empty()) {
            result.notes.push_back(
                fmt::format("{}: every head keeps as many rows, as llama.cpp's state demands, not "
                            "what {} says",
                            own.text,
                            dropped));
        }
        if (own.how.rows.encodes()) {
            result.notes.push_back(
                fmt::format("{}: its codecs' loss is in the cells, their size is not; MiB: as the "
                            "library would hold them",
                            own.text));
        }
        result.policies.push_back(std::move(own));
    }
    return result;
}

} // namespace client
