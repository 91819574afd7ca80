"""bash and zsh complete what flowad knows."""

import shutil
import subprocess

import pytest

from flowad_jax.cli import completion, main, recipes

CASES = {
    "": " ".join(main.COMMANDS),
    "rec": "recalibrate recipes",
    "train --con": "--config=",
    "train --config=quick": "quickstart",
    "train --config = quick": "quickstart",
    "train --config = my": "my_own.py",
    "train --config quick": "quickstart",
    "train --config.data.na": "--config.data.name=",
    "train --config.data.options.ta": "--config.data.options.table=",
    "train --config.method.name = ms": "msflow",
    "predict --map_format =": "tiff npy",
    "predict --wat": "--watch",
    "predict --workdir = ": "",  # bash itself offers files then
    "recipes --copy papers/cflow_mvtec_res": "papers/cflow_mvtec_resnet18",
    "doctor --name vis": "visa",
    "convert --arch=resnet.resnet18": "resnet.resnet18",
    "completion z": "zsh",
    "nonsense --x": "",
}


@pytest.fixture(scope="module")
def script():
    return completion.script(completion._BASH)


def test_bash(script, tmp_path):
    (tmp_path / "my_own.py").touch()
    (tmp_path / "my_notes.txt").touch()
    calls = [
        f"COMP_WORDS=(flowad {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n"
        '_flowad; echo "${COMPREPLY[*]}"'
        for words in (words if words.strip() == words != "" else f'{words} ""' for words in CASES)
    ]
    code = "\n".join([script, *calls])
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == ""
    assert dict(zip(CASES, done.stdout.splitlines(), strict=True)) == CASES


def test_the_words_are_those_of_the_commands(script):
    for name in recipes.packaged():
        assert f" {name}" in script or f'"{name}' in script
    words = {command: completion.words_of(module) for command, (module, _) in main.COMMANDS.items()}
    assert all(words.values())
    assert words["train"]["--config="] == list(recipes.packaged())
    assert "--fail_on_anomaly" in words["predict"]
    assert completion.config_keys()["--config.encoder.name"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
def test_zsh_reads_its_script(tmp_path):
    (tmp_path / "_flowad").write_text(completion.script(completion._ZSH))
    code = "autoload -U compinit; compinit -D -u; source ./_flowad; print $_comps[flowad]"
    words = ["zsh", "-f", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("_flowad\n", "")
