# SPDX-License-Identifier: Apache-2.0
# cmake -DOUT=FILE -P join_sources.cmake -- SOURCE...
# Writes one translation unit that holds all SOURCEs. Names of one test's unnamed namespace stay its own: around each
# comes a namespace with the name of the file. Diagnostics, __FILE__ and debuggers point into the sources.
cmake_minimum_required(VERSION 3.21)

set(unit "")
set(seen_separator FALSE)
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE ${last})
    set(source "${CMAKE_ARGV${i}}")
    if(seen_separator)
        get_filename_component(name "${source}" NAME_WE)
        file(READ "${source}" text)
        string(REPLACE "\nnamespace {\n" "\nnamespace ${name} { namespace {\n" text "${text}")
        string(REPLACE "\n} // namespace\n" "\n}} // namespace\n" text "${text}")
        string(APPEND unit "#line 1 \"${source}\"\n${text}\n")
    elseif(source STREQUAL "--")
        set(seen_separator TRUE)
    endif()
endforeach()
file(WRITE "${OUT}" "${unit}")
