"""Does a test notice? Mutations of the native library, applied one at a time to a copy of it.

Run with `hatch run mutate-native [NAME...]`, which takes a minute or two for each. A mutation that
is not noticed is a test that is missing. The exit code is the number of those.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[2]
SCRATCH = REPO / "build" / "mutations" / "native"
BUILD = REPO / "build" / "mutations" / "build"


class Mutation(NamedTuple):
    """A fault to make.

    Attributes:
        name: what to call it.
        file: where, in native/.
        old: the text to replace, which is there once.
        new: what by.
        tests: a regular expression for ctest: the tests of which one must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = [
    Mutation(
        "wide-from-33-rows",
        "src/step.cpp",
        "if (p.n >= RWKV_WIDE) add(p);",
        "if (p.n > RWKV_WIDE) add(p);",
        "session|wide",
    ),
    Mutation(
        "narrow-to-32-rows",
        "src/step.cpp",
        "if (p.n < RWKV_WIDE) add(p);",
        "if (p.n <= RWKV_WIDE) add(p);",
        "session|wide",
    ),
    Mutation(
        "pieces-of-255",
        "src/step.h",
        "constexpr size_t kPieceRows = 256;",
        "constexpr size_t kPieceRows = 255;",
        "session|wide|api",
    ),
    Mutation(
        "no-munmap",
        "src/memory.cpp",
        "if (data_ != nullptr) os::free_pages(data_, size_);",
        "",
        "failing_calls|model_file|api|state",
    ),
    Mutation(
        "no-fsync",
        "src/os_posix.cpp",
        "if (::fsync(parts_->file) != 0 && errno != EINVAL) fail(errno);  // EINVAL: of no disk",
        "",
        "failing_calls|state_file",
    ),
    Mutation(
        "reset-keeps-mu",
        "src/sampler.cpp",
        "    mirostat_mu_ = 2 * options_.mirostat_tau;\n",
        "",
        "sampler",
    ),
    Mutation(
        "quota-rounded-up",
        "src/os_linux.cpp",
        "std::max(1L, quota / period)",
        "std::max(1L, (quota + period - 1) / period)",
        "cpu_cores",
    ),
    Mutation(
        "low-rank-buffers-of-layer-0",
        "src/forward_v6.cpp",
        "        maa_rank = std::max(maa_rank, l.maa_w2[0].n_in);\n",
        "        maa_rank = layers[0].maa_w2[0].n_in;\n        (void)l;\n",
        "session",
    ),
    Mutation(
        "descriptor-left-open",
        "src/os_posix.cpp",
        "ReadableFile::~ReadableFile() { ::close(static_cast<int>(handle_)); }",
        "ReadableFile::~ReadableFile() = default;",
        "failing_calls",
    ),
    Mutation(
        "vocabulary-of-any-size",
        "src/tokenizer.cpp",
        "if (file.size() > kMaxFileBytes) {",
        "if (false && file.size() > kMaxFileBytes) {",
        "tokenizer",
    ),
    Mutation(
        "memory-not-reserved",
        "src/step.cpp",
        "    for (const Work& w : work) w.state->begin_change();\n",
        "    for (const Work& w : work) w.state->begin_change();\n    std::vector<char> late(1);\n",
        "failing_calls",
    ),
    Mutation(
        "unfair-turns",
        "src/fair_mutex.h",
        "        *(first_ == nullptr ? &first_ : &last_->next) = &self;\n",
        "        self.next = first_;\n        first_ = &self;\n",
        "turns",
    ),
    Mutation(
        "fork-keeps-the-threads",
        "src/executor.h",
        "return pid == os::process_id();",
        "return true;",
        "fork",
    ),
    Mutation(
        "eta-without-bound",
        "src/sampler.cpp",
        "constexpr double kMostEta = 1e3;",
        "constexpr double kMostEta = 1e308;",
        "sampler",
    ),
    Mutation(
        "rescaling-ignored",
        "src/forward_v6.cpp",
        "n_done % c.rescale_every == 0",
        "n_done % c.rescale_every == 1",
        "gguf",
    ),
    # Taking rows back.
    Mutation(
        "ring-without-a-place-more",
        "src/recent_rows.h",
        "return (before_ + n_pending_ + n) % (most_ + 1);",
        "return (before_ + n_pending_ + n) % most_;",
        "rollback",
    ),
    Mutation(
        "row-before-forgotten",
        "src/recent_rows.cpp",
        "    has_before_ = has_last();\n",
        "",
        "rollback",
    ),
    Mutation(
        "row-before-not-moved",
        "src/recent_rows.cpp",
        "    before_ = slot_after(0);\n",
        "",
        "rollback",
    ),
    Mutation(
        "nothing-kept-is-all",
        "src/recent_rows.cpp",
        "    n_pending_ = n;\n",
        "    if (n > 0) n_pending_ = n;\n",
        "rollback",
    ),
    Mutation(
        "kept-twice",
        "src/recent_rows.cpp",
        "    n_pending_ = n;\n    n_undecided_ = 0;\n",
        "    n_pending_ = n;\n",
        "rollback",
    ),
    Mutation(
        "later-rows-taken-as-the-first",
        "src/forward_v7.cpp",
        "S.take(first - s.first_row, n, C,",
        "S.take(0, n, C,",
        "rollback",
    ),
    Mutation(
        "later-rows-begin-anew",
        "src/forward_v7.cpp",
        "        before = S.after();\n",
        "",
        "rollback",
    ),
    Mutation(
        "decay-of-layer-0",
        "src/recent_rows.cpp",
        "v, nullptr, decays_[layer] + head * N, 0,",
        "v, nullptr, decays_[0] + head * N, 0,",
        "rollback",
    ),
    Mutation(
        "decay-of-the-first-channels",
        "src/recent_rows.cpp",
        "nullptr, decays_[layer] + head * N, k, v, S,",
        "nullptr, decays_[layer], k, v, S,",
        "rollback",
    ),
    Mutation(
        "copies-lack-what-is-pending",
        "src/state.cpp",
        "        recent_->apply(layer, head, to + 2 * C + head * heads.part);\n",
        "        (void)heads.part;\n",
        "rollback",
    ),
    Mutation(
        "copies-lack-the-last-shift",
        "src/state.cpp",
        "if (last != nullptr) std::memcpy(to +",
        "if (false) std::memcpy(to +",
        "rollback",
    ),
    Mutation(
        "pending-survives-a-replaced-state",
        "src/state.cpp",
        "    if (recent_ != nullptr) recent_->clear();\n    std::memcpy(values_, in,",
        "    std::memcpy(values_, in,",
        "rollback",
    ),
    Mutation(
        "pending-survives-a-longer-step",
        "src/state.cpp",
        "    if (recent_ != nullptr) recent_->clear();\n    has_hidden_ = true;\n",
        "    has_hidden_ = true;\n",
        "rollback",
    ),
    Mutation(
        "pending-survives-a-reset",
        "src/state.cpp",
        "    has_hidden_ = false;\n    if (recent_ != nullptr) recent_->clear();\n",
        "    has_hidden_ = false;\n",
        "rollback",
    ),
    Mutation(
        "pending-lost-when-no-more-is-taken-back",
        "src/state.cpp",
        "    become(*this);\n",
        "",
        "rollback",
    ),
    Mutation(
        "copies-lack-the-hidden-state",
        "src/state.cpp",
        "    has_hidden_ = other.has_hidden();\n",
        "    has_hidden_ = other.has_hidden_;\n",
        "rollback",
    ),
    Mutation(
        "own-state-leaves-it-to-be-decided",
        "src/state.cpp",
        "    keep_all();\n    return *this;\n",
        "    return *this;\n",
        "rollback",
    ),
    Mutation(
        "pending-not-applied-by-passes",
        "src/head_state.cpp",
        "    if (state.recent_ != nullptr) state.recent_->apply(",
        "    if (false) state.recent_->apply(",
        "rollback",
    ),
    Mutation(
        "rows-worked-on-in-place",
        "src/head_state.cpp",
        "        after_ = room;\n        ld_after_",
        "        ld_after_",
        "rollback",
    ),
    Mutation(
        "last-piece-taken-back",
        "src/step.cpp",
        "w.state->recent_for(w.tokens.size());",
        "w.state->recent_for(p.n);",
        "rollback",
    ),
    Mutation(
        "cache-lets-its-last-piece-be-taken-back",
        "src/prefix_cache.cpp",
        "        session.state.keep_all();\n",
        "",
        "rollback",
    ),
    Mutation(
        "fork-takes-nothing-back",
        "src/session.cpp",
        "    allow_take_back(other.state.most_taken_back());\n",
        "",
        "rollback",
    ),
]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command, and keep what it says."""
    return subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def copy_sources() -> None:
    """Copy what git knows of native/, anew."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
    listed = run(
        "git", "-C", REPO, "ls-files", "--cached", "--others", "--exclude-standard", "native"
    )
    for name in listed.stdout.splitlines():
        target = SCRATCH / Path(name).relative_to("native")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPO / name, target)  # new to the build, whatever it compiled before


def build() -> subprocess.CompletedProcess[str]:
    """Compile the copy with its tests."""
    done = run("cmake", "-S", SCRATCH, "-B", BUILD, "-G", "Ninja",
               "-DCMAKE_BUILD_TYPE=Release", "-DRWKV_TESTS=ON")  # fmt: skip
    return done if done.returncode else run("cmake", "--build", BUILD)


def test(names: str) -> subprocess.CompletedProcess[str]:
    """Run tests whose names match."""
    return run("ctest", "--test-dir", BUILD, "--output-on-failure", "--no-tests=error", "-R", names)


def is_noticed(mutation: Mutation) -> bool:
    """Make a fault, see whether its tests fail, and mend it."""
    path = SCRATCH / mutation.file
    source = path.read_text()
    if source.count(mutation.old) != 1:
        raise SystemExit(
            f"{mutation.name}: {mutation.file}: expected {mutation.old!r} once, got "
            f"{source.count(mutation.old)} times. Try another text"
        )
    path.write_text(source.replace(mutation.old, mutation.new))
    try:
        built = build()
        if built.returncode:
            raise SystemExit(
                f"{mutation.name}: expected a fault that compiles, got\n{built.stdout}"
            )
        return test(mutation.tests).returncode != 0
    finally:
        path.write_text(source)


def main(names: list[str]) -> int:
    """Make the mutations of these names, or all; return how many nobody noticed."""
    unknown = set(names) - {mutation.name for mutation in MUTATIONS}
    if unknown:
        raise SystemExit(f"mutations: expected names of the table, got {', '.join(unknown)}")
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    copy_sources()
    for done in (build(), test("|".join(mutation.tests for mutation in chosen))):
        if done.returncode:  # without a mutation: nothing could be told from a failure
            raise SystemExit(done.stdout)
    missed = 0
    for mutation in chosen:
        noticed = is_noticed(mutation)
        missed += not noticed
        print(f"{mutation.name}: {'noticed' if noticed else 'NOT NOTICED'}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
