"""What the scripts share: flag errors in one line, faults in one line, exit codes.

0 done, 1 the user can fix it, 2 wrong usage, 128 + n stopped by signal n after saving.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_dict
from ml_collections.config_flags import config_flags

from flowad_jax import files, programs
from flowad_jax.errors import UserError, one_line
from flowad_jax.lookup import nearest
from flowad_jax.training.config_schema import check as check_config
from flowad_jax.training.config_schema import flatten

_HELP = frozenset({"--help", "-help", "-h", "-?", "--helpshort", "--helpfull"})
_OVERRIDE = re.compile(r"--(?:no)?config\.([\w.]+)")


def define_config() -> flags.FlagHolder:
    """Defines ``--config=FILE`` with overrides ``--config.section.key=value``."""
    return config_flags.DEFINE_config_file(
        "config",
        None,
        "Recipe, e.g. configs/quickstart.py. Any key can be overridden: "
        "--config.data.category=grass --config.train.epochs=20. configs/base.py explains them.",
        lock_config=True,
    )


def define_allow_import() -> None:
    """Defines the flag that lets the config of a workdir name functions of other packages."""
    flags.DEFINE_multi_string(
        "allow_import",
        [],
        "Package whose functions the config of the workdir may name, as 'mine.flows:build'. A "
        "workdir from others runs no code without it: name only what you would let its author "
        "call with any arguments. May be repeated.",
    )


def define_hosts() -> None:
    """Defines the flags by which the processes of a job on several hosts find each other."""
    flags.DEFINE_boolean(
        "distributed",
        False,
        "This process is one of a job on several hosts, one per host; the cluster says which "
        "(SLURM, Open MPI, GKE, Cloud TPU).",
    )
    flags.DEFINE_string("coordinator", None, "HOST:PORT of host 0, where no cluster says it.")
    flags.DEFINE_integer("hosts", None, "How many there are, where no cluster says it.")
    flags.DEFINE_integer("host", None, "The number of this one, from 0, where no cluster says it.")


def join_hosts() -> None:
    """Joins the other hosts, if the flags of `define_hosts` say that there are some."""
    values = flags.FLAGS
    if values.distributed or values.coordinator:
        from flowad_jax import parallel

        parallel.initialise(values.coordinator, values.hosts, values.host)


def say(text: str) -> None:
    """Prints, on one host of a job."""
    from flowad_jax import parallel

    if parallel.is_first():
        print(text)


def run(
    main: Callable[[], None],
    required: Iterable[str] = (),
    check: Callable[[], None] = lambda: None,
) -> None:
    """Parses flags, runs ``main`` and ends the process.

    Args:
      main: the job.
      required: names of flags that must be given.
      check: what else has to be right about the flags; it ends the process with `fail` or
        `require` where it is not.
    """
    _quiet_logging()
    programs.keep()

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            fail(2, f"unexpected argument '{argv[1]}': flags are written --name=value; see --help")
        require(required)
        check()
        if not any(word.lstrip("-").startswith(("verbosity", "v=")) for word in sys.argv[1:]):
            absl_logging.set_verbosity(absl_logging.WARNING)
        _guard(main)

    app.run(guarded, flags_parser=_parse)


def require(names: Iterable[str]) -> None:
    """Ends the process where flags are missing."""
    missing = [f"--{name}" for name in names if flags.FLAGS[name].value is None]
    if missing:
        fail(2, f"missing {', '.join(missing)}; see --help")


def fail(code: int, message: str) -> NoReturn:
    """Prints one line on standard error and exits."""
    print(f"error: {one_line(message)}", file=sys.stderr)
    raise SystemExit(code)


def _guard(main: Callable[[], None]) -> None:
    from flowad_jax.training.interrupt import Interrupted

    try:
        if "config" in flags.FLAGS and flags.FLAGS["config"].value is not None:
            check_config(flags.FLAGS["config"].value)  # before a key that is missing is asked for
        main()
    except UserError as error:
        fail(1, str(error))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise SystemExit(stop.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted before the first batch; nothing was changed", file=sys.stderr)
        raise SystemExit(130) from None


def _quiet_logging() -> None:
    """Shows our own messages as plain lines, whatever bytes the names in them hold."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    log = logging.getLogger("flowad_jax")
    log.setLevel(logging.INFO)
    log.propagate = False
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_OneLine("%(message)s"))
        log.addHandler(handler)


class _OneLine(logging.Formatter):
    """Lets nothing out of a stranger's file reach the terminal but as text on the same line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.formatMessage`."""
        return one_line(super().formatMessage(record))


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; whatever is wrong with them becomes one line and exit code 2."""
    try:
        if words := _HELP.intersection(argv[1:]):
            full = "--helpfull" in words
            app.usage(shorthelp=not full, writeto_stdout=True, exitcode=0)
        if recipe := _recipe(argv):  # a named pipe would be waited for
            files.open_regular(recipe.partition(":")[0]).close()
        rest = flags.FLAGS(argv)
        if recipe:
            config = flags.FLAGS["config"].value
            # A fault only shows at the first use, and None stands for no recipe.
            config.lock() if config is not None else _load(recipe)
        return rest
    except Exception as error:  # a recipe is code and may raise anything
        fail(2, _explain(argv, error))


def _explain(argv: list[str], error: Exception) -> str:
    """Says what is wrong with the recipe, names a misspelt key, or repeats the error."""
    if recipe := _recipe(argv):
        try:
            known = list(flatten(_load(recipe).to_dict()))
        except Exception as fault:
            return _recipe_fault(Path(recipe.partition(":")[0]), fault)
        for word in argv[1:]:
            match = _OVERRIDE.match(word)
            if match and match[1] not in known:
                return f"unknown key --config.{match[1]}: {nearest(match[1], known)}"
    return " ".join(str(error).split())


def _recipe(argv: list[str]) -> str:
    """The recipe named on the command line, if there is one."""
    if "config" not in flags.FLAGS:
        return ""
    words = argv[1:]
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name in ("--config", "-config"):
            return value if equals else following
    return ""


def _load(recipe: str) -> config_dict.ConfigDict:
    """What the recipe's ``get_config`` returns."""
    name, colon, argument = recipe.partition(":")
    files.open_regular(name).close()
    loader = importlib.machinery.SourceFileLoader("_recipe", name)
    spec = importlib.util.spec_from_loader("_recipe", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError("it is no recipe, as it defines no get_config()")
    config = module.get_config(*[argument] * bool(colon))
    if not isinstance(config, config_dict.ConfigDict):
        kind = type(config).__name__
        raise UserError(f"its get_config() returns {kind} instead of a ConfigDict")
    return config


def _recipe_fault(recipe: Path, fault: Exception) -> str:
    """Why a recipe cannot be loaded, and the line of it where that happened."""
    if isinstance(fault, FileNotFoundError) and not recipe.exists():
        known = [str(path) for path in sorted(recipe.parent.glob("*.py"))]
        return f"--config: there is no file {recipe}" + (
            f"; {nearest(str(recipe), known)}" * bool(known)
        )
    frames = traceback.extract_tb(fault.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(recipe)]
    line = fault.lineno if isinstance(fault, SyntaxError) else lines[-1] if lines else None
    reason = getattr(fault, "strerror", None) or str(fault)
    if lines or isinstance(fault, SyntaxError):
        reason = f"{type(fault).__name__}: {reason}"
    where = f" (line {line})" if line else ""
    return f"--config: {recipe} cannot be loaded{where}: {reason}"
