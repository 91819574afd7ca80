"""Commands in the documents: programs, flags, recipes and keys exist, and cheap ones are run."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from flowad_jax.cli import recipe
from flowad_jax.cli.main import COMMANDS
from tests.test_docs import DOCUMENTS, ROOT

FENCE = re.compile(r"^ *```(?:bash|sh|console)?\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# Those that are run as they stand, in an empty folder.
RUN = (
    r"flowad (--help|--version|recipes|doctor|data|data --name=\w+)",
    r"flowad recipes --copy \w+ \.",
    r"flowad completion (bash|zsh)",
    r"flowad convert --explain --arch=resnet.resnet18",
    r"flowad synthesize --kind=mixture.scar .*--output=[\w.]+",
)
# Why the others are not; of all that are ours, programs, flags, recipes and keys are looked up.
NOT_RUN = {
    r"(python3 -m venv .*|\. \.venv/bin/activate .*|pip install .*)": "`.ci/run` does that",
    r"(python -m pytest|ruff check|mkdocs).*": "`.ci/run` does that",
    r"flowad (train|eval|predict) .*": "trains, or needs what was trained: tests/new_user.py",
    r"(flowad export|python screws.flowad/run.py) .*": "needs what was trained: tests/bundle",
    r"flowad (serve|feedback|recalibrate) .*": "needs what was trained: tests/serve, tests/bundle",
    r"flowad compare .*": "needs what was trained: tests/comparison",
    r"flowad reproduce .*": "needs the data set of a paper: tests/reproduction",
    r"flowad convert .*": "needs a file of PyTorch: tests/weights, tests/conversion",
    r"flowad completion .* > ~.*": "writes into a home: tests/cli/test_completion.py",
    r"flowad fetch .*": "needs a network",
    r"flowad (data|doctor|synthesize) .*": "reads or writes what a checkout or a user has",
    r"python -m flowad_jax.settings .*": "writes a page, see tests/settings",
    r"python (-m benchmarks[\w.]*|benchmarks/\w+\.py) .*": "takes minutes, or needs data",
}


def commands():
    """(document, command) of every line that starts a program, continued lines joined."""
    for document in DOCUMENTS:
        for block in FENCE.findall(document.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                plain = re.sub(r"^for \w+ in [^;]*; do (.*); done$", r"\1", line.strip())
                plain = " ".join(plain.partition("  #")[0].rstrip(" &").split())
                plain = plain.rstrip('"') if plain.count('"') % 2 else plain  # of an outer shell
                if re.match(r"(flowad|python3?|pip|\.|mkdocs|ruff)\b", plain):
                    yield document.name, plain
    yield "README.md", "flowad --help"


ALL = sorted(set(commands()))
OURS = [pair for pair in ALL if re.match(r"flowad |python (-m )?(benchmarks|flowad_jax)", pair[1])]
SHARED = [
    ROOT / path
    for path in (
        "flowad_jax/cli/scripts.py",
        "benchmarks/_common.py",
        "benchmarks/performance/contest.py",
    )
]


def is_run(command):
    return any(re.fullmatch(pattern, command) for pattern in RUN)


def source(words):
    """The words behind a program's name, and the text of the files that define its flags."""
    first, *others = words[1:] if words[1] != "-m" else words[2:]
    module = COMMANDS[first][0] if first in COMMANDS else first.removesuffix(".py")
    path = ROOT / module.removesuffix(".__main__").replace(".", "/")
    files = [*path.glob("*.py"), *path.parent.glob(f"{path.name}.py"), *SHARED]
    return others, "\n".join(file.read_text(encoding="utf-8") for file in files)


def test_every_command_is_run_or_has_a_reason():
    for document, command in ALL:
        known = is_run(command) or any(re.fullmatch(pattern, command) for pattern in NOT_RUN)
        assert known, f"{document}: {command}"


@pytest.mark.parametrize(("document", "command"), OURS)
def test_flags_recipes_and_keys_exist(document, command):
    words, text = source(shlex.split(command))
    for word in words:
        flag = re.match(r"--(?:no)?([\w.]+)", word)
        if flag and not flag[1].startswith("config."):
            assert f'"{flag[1]}"' in text or f'"--{flag[1]}"' in text, f"{command}: --{flag[1]}"
    if name := recipe.value_of("config", words):
        config = recipe.load(name)
        recipe.choose_named(words, config)
        recipe.check_overrides(words, config)


@pytest.mark.whole
@pytest.mark.parametrize("command", sorted({c for _, c in ALL if is_run(c)}))
def test_cheap_commands_run(command, tmp_path):
    words = [sys.executable, "-m", "flowad_jax", *shlex.split(command)[1:]]
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=own)
    assert done.returncode == 0, done.stderr
    assert done.stdout
