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
        "if (data_ != nullptr) ::munmap(data_, size_);",
        "",
        "failing_calls|model_file|api|state",
    ),
    Mutation(
        "no-fsync",
        "src/new_file.cpp",
        "if (::fsync(file_) != 0 && errno != EINVAL) fail(errno);  // EINVAL: of no disk",
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
        "src/cpu_cores.cpp",
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
        "src/input_file.cpp",
        "InputFile::~InputFile() { ::close(file_); }",
        "InputFile::~InputFile() = default;",
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
        "return pid == ::getpid();",
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
        "(i + 1) % c.rescale_every == 0",
        "(i + 1) % c.rescale_every == 1",
        "gguf",
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
