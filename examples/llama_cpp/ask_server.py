#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds four conversations of two turns with llama-server at once, on this machine, and writes the answers down.

usage: ask_server.py LLAMA_SERVER MODEL ANSWERS.json LOG [PRELOAD]

LOG takes what the server says; PRELOAD is a library that it is started with, empty for none.
"""
import concurrent.futures
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

QUESTIONS = [
    ["Name a river in Africa.", "Through which countries does it flow?"],
    ["What is a lighthouse for?", "Who looks after one?"],
    ["Write a sentence about winter.", "Write another one, about the wind."],
    ["How many legs has a spider?", "And an ant?"],
]
START_SECONDS = 60
ANSWER_SECONDS = 120


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, path, body=None, seconds=ANSWER_SECONDS):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=seconds) as answer:
        return json.load(answer)


def wait_until_ready(server, port):
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            sys.exit(f"llama-server ended with {server.returncode} before it was ready")
        try:
            ask(port, "/health", seconds=2)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit(f"llama-server was not ready after {START_SECONDS} seconds")


def converse(port, questions):
    messages = []
    for question in questions:
        messages.append({"role": "user", "content": question})
        answer = ask(port, "/v1/chat/completions", {"messages": messages, "max_tokens": 48, "temperature": 0})
        messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
    return messages


def main():
    if len(sys.argv) not in (5, 6):
        sys.exit(__doc__)
    program, model, answers, log = sys.argv[1:5]
    environment = dict(os.environ)
    if len(sys.argv) == 6 and sys.argv[5]:
        environment["LD_PRELOAD"] = sys.argv[5]
    port = free_port()
    with open(log, "wb") as said:
        server = subprocess.Popen(
            [program, "-m", model, "--host", "127.0.0.1", "--port", str(port), "--parallel", "4", "-c", "4096",
             "-fa", "on", "-ctk", "q8_0", "-ctv", "q8_0", "-lv", "4", "--offline"],
            env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
    try:
        wait_until_ready(server, port)
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(len(QUESTIONS)) as pool:
            try:
                talks = list(pool.map(lambda questions: converse(port, questions), QUESTIONS))
            except (OSError, ValueError, KeyError) as error:
                sys.exit(f"llama-server gave no answer within {ANSWER_SECONDS} seconds, or not one: {error}")
        seconds = time.monotonic() - began
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
    replies = [message["content"] for talk in talks for message in talk if message["role"] == "assistant"]
    if not all(reply.strip() for reply in replies):
        sys.exit("an answer is empty")
    pathlib.Path(answers).write_text(json.dumps(talks, indent=1))
    print(f"four conversations at once, {len(replies)} answers in {seconds:.1f} s; the first: {replies[0].strip()[:70]}")


main()
