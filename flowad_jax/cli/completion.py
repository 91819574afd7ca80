r"""Prints a script by which a shell completes commands, flags, recipes and the keys of configs.

source <(flowad completion bash)
    for bash, now; for good:
    flowad completion bash > ~/.local/share/bash-completion/completions/flowad
source <(flowad completion zsh)
    for zsh, behind compinit; for good, into a folder of fpath:
    flowad completion zsh > ~/.zfunc/_flowad

The script holds all words, so that it answers at once; print it again with a new version of flowad.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from absl import flags

from flowad_jax import lookup
from flowad_jax.arguments import Parser
from flowad_jax.cli.main import COMMANDS
from flowad_jax.cli.recipes import packaged
from flowad_jax.detector.config_schema import flatten
from flowad_jax.encoders import architecture
from flowad_jax.settings import sections

# Where nothing is offered, the shell offers files.
_BASH = """\
_flowad() {
    local command=${COMP_WORDS[1]} word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local flag= offer=
    # bash takes --flag=value for three words if = is one of COMP_WORDBREAKS
    if [[ $word == --*=* ]]; then
        flag=${word%%=*} word=${word#*=}
    elif [[ $word == = ]]; then
        flag=$before word=
    elif [[ $before == = ]]; then
        flag=${COMP_WORDS[COMP_CWORD-2]}
    elif [[ $before == --* && $word != -* ]]; then
        flag=$before
    fi
    if ((COMP_CWORD == 1)); then
        offer="@commands@"
    elif [[ $flag ]]; then
        case $command$flag in
@values@
        esac
    elif [[ $word == --config.* ]]; then
        offer="@keys@"
    else
        case $command in
@flags@
        esac
    fi
    COMPREPLY=($(compgen -W "$offer" -- "$word"))
    if [[ $flag == --config ]]; then
        mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -X '!*.py' -- "$word")
    elif [[ ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o default -F _flowad flowad
"""
_ZSH = """\
#compdef flowad
_flowad() {
    local command=$words[2] before=$words[CURRENT-1] flag= offer=
    if [[ $PREFIX == --*=* ]]; then
        flag=${PREFIX%%=*}
        compset -P '*='
    elif [[ $before == --* && $before != *=* && $PREFIX != -* ]]; then
        flag=$before
    fi
    if ((CURRENT == 2)); then
        offer="@commands@"
    elif [[ -n $flag ]]; then
        case $command$flag in
@values@
        esac
    elif [[ $PREFIX == --config.* ]]; then
        offer="@keys@"
    else
        case $command in
@flags@
        esac
    fi
    local -a choices=(${=offer})
    compadd -S '' -- ${(M)choices:#*=}
    compadd -- ${choices:#*=}
    if [[ $flag == --config ]]; then
        _files -g '*.py'
    elif [[ -z $offer ]]; then
        _files
    fi
}
if [[ $funcstack[1] == _flowad ]]; then _flowad "$@"; else compdef _flowad flowad; fi
"""


def main() -> None:
    """Prints the script for the shell that ``sys.argv`` names."""
    args = make_parser().parse_args()
    print(script(_BASH if args.shell == "bash" else _ZSH), end="")


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("flowad completion", __doc__)
    parser.add_argument("shell", choices=("bash", "zsh"))
    return parser


def script(template: str) -> str:
    """Fills the tables of a shell's script."""
    keys = config_keys()
    values, words = [], []
    for command, (module, _) in COMMANDS.items():
        table = words_of(module)
        words.append(_case(command, table))
        values += [_case(command + word.rstrip("="), table[word]) for word in table if table[word]]
    values += [_case(f"*{key}", choices) for key, choices in keys.items() if choices]
    tables = {
        "commands": " ".join(COMMANDS),
        "values": "\n".join(values),
        "flags": "\n".join(words),
        "keys": " ".join(f"{key}=" for key in keys),
    }
    for name, text in tables.items():
        template = template.replace(f"@{name}@", text)
    return template


def _case(pattern: str, words: Iterable[str]) -> str:
    return f'            {pattern}) offer="{" ".join(words)}" ;;'


def words_of(module: str) -> dict[str, list[str]]:
    """Returns the words of a command, ``--flag=`` where a value follows, and what may follow."""
    command = importlib.import_module(module)
    if hasattr(command, "make_parser"):
        return _of_parser(command.make_parser())
    before = {*flags.FLAGS}
    command.define_flags()
    defined = {name: flags.FLAGS[name] for name in flags.FLAGS if name not in before}
    for name in defined:  # another command may have a flag of this name
        delattr(flags.FLAGS, name)
    return {
        f"--{name}" + "=" * (not flag.boolean): _known(name)
        or list(getattr(flag.parser, "enum_values", ()))
        for name, flag in sorted(defined.items())
    }


def _of_parser(parser: Parser) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {}
    for action in parser._actions:
        choices = list(map(str, action.choices or ()))
        if not action.option_strings:
            words |= {choice: [] for choice in choices}
        elif action.nargs is None:
            name = action.option_strings[-1]
            words[f"{name}="] = choices or _known(name.lstrip("-"))
        else:  # switches, and what takes two words
            words[action.option_strings[-1]] = _known(action.dest)
    return words


def _known(flag: str) -> list[str]:
    """What may stand behind flags of this name, whatever their command."""
    if flag in ("config", "copy"):
        return list(packaged())
    plugins = {"arch": architecture.PACKAGE, "name": sections.CALLS["data.options"].plugins}
    return lookup.choices(plugins[flag]) if flag in plugins else []


def config_keys() -> dict[str, list[str]]:
    """Returns ``--config.KEY`` of all methods, data sets and so on, and what may be chosen."""
    keys: dict[str, list[str]] = {}

    def add(section: str, name: str | None = None) -> None:
        made = flatten(sections.section(section, name).to_dict())
        keys.update((f"{section}.{word}".removeprefix("."), []) for word in made)

    for section in ("", "data", "encoder", "train", "cache", "eval", "sweep"):
        add(section)
    for section, call in sections.CALLS.items():
        choices = lookup.choices(call.plugins)
        for choice in choices:
            add(section, choice)
        keys[call.name] = choices
    keys["encoder.name"] = lookup.choices(architecture.PACKAGE)
    return {f"--config.{key}": keys[key] for key in sorted(keys)}
