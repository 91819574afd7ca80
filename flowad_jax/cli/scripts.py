"""What commands with a config share: common flags, faults in one line, exit codes.

0 done, 1 the user can fix it, 2 wrong usage, 128 + n stopped by signal n after saving.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterable

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_dict
from ml_collections.config_flags import config_flags

from flowad_jax.arguments import fail
from flowad_jax.cli import recipe
from flowad_jax.detector.config_schema import check as check_config
from flowad_jax.errors import UserError, one_line

_HELP = frozenset({"--help", "-help", "-h", "-?", "--helpshort", "--helpfull"})


def define_config() -> flags.FlagHolder[config_dict.ConfigDict]:
    """Defines ``--config=FILE`` with overrides ``--config.section.key=value``."""
    return config_flags.DEFINE_config_file(
        "config",
        None,
        "Recipe: a name, see `flowad recipes`, or a file. Any key can be overridden: "
        "--config.data.category=grass --config.train.epochs=20; a name, as --config.data.name=csv, "
        "brings the options that belong to it. `python -m flowad_jax.settings` explains all keys.",
        lock_config=True,
    )


def define_false_alarm_rate() -> flags.FlagHolder[float | None]:
    """Defines ``--false_alarm_rate``."""
    return flags.DEFINE_float(
        "false_alarm_rate",
        None,
        "How often a normal image may be called anomalous, such as 0.01. The images that training "
        "held out set the threshold; where they are too few for a promise, it is an estimate. "
        "Default: what the run's config says.",
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


def print_once(text: str) -> None:
    """Prints on one host of a job."""
    from flowad_jax import parallel

    if parallel.is_first():
        print(text)


def run(
    doc: str | None,
    define_flags: Callable[[], None],
    job: Callable[[], None],
    required: Iterable[str] = (),
    check: Callable[[], None] = lambda: None,
) -> None:
    """Parses the flags of ``sys.argv``, runs a job and ends the process.

    Args:
      doc: what ``--help`` shows above the flags.
      define_flags: defines the flags of the command.
      job: what the command does.
      required: names of flags that must be given.
      check: ends the process with `fail` or `require` where flags do not go together.
    """
    set_up_logging()
    define_flags()

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            fail(2, f"unexpected argument '{argv[1]}': flags are written --name=value; see --help")
        require(required)
        check()
        if not any(word.lstrip("-").startswith(("verbosity", "v=")) for word in sys.argv[1:]):
            absl_logging.set_verbosity(absl_logging.WARNING)
        elif absl_logging.get_verbosity() > absl_logging.INFO:
            logging.getLogger("flowad_jax").setLevel(logging.DEBUG)
        from flowad_jax import jax_config  # late: help and faults do not wait for jax

        jax_config.enable_compilation_cache()
        guard(job)

    if words := _HELP.intersection(sys.argv[1:]):
        _show_help(doc, define_flags.__module__, "--helpfull" in words)
        return
    app.run(guarded, flags_parser=_parse)


def require(names: Iterable[str]) -> None:
    """Ends the process where flags are missing."""
    missing = [f"--{name}" for name in names if flags.FLAGS[name].value is None]
    if missing:
        fail(2, f"missing {', '.join(missing)}; see --help")


def _show_help(doc: str | None, module: str, full: bool) -> None:
    """Prints what a command does and its flags; ``full`` adds those of absl, such as --flagfile."""
    text = flags.FLAGS.get_help() if full else flags.FLAGS.module_help(module)
    print(f"{(doc or '').strip()}\n\nFlags:\n{text.partition(':')[2]}")


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; whatever is wrong with them becomes one line and exit code 2."""
    try:
        named = recipe.value_of("config", argv[1:]) if "config" in flags.FLAGS else None
        if named is not None:
            config = recipe.load(named)
            recipe.choose_named(argv[1:], config)
            recipe.check_overrides(argv[1:], config)
            flags.FLAGS["config"].parser = recipe.Loaded(config)
        return flags.FLAGS(argv)
    except Exception as error:  # the types of overrides raise what they like
        fail(2, " ".join(str(error).split()))


def guard(job: Callable[[], None]) -> None:
    """Runs a job; a fault of the user's becomes one line and exit code 1, a signal 128 more."""
    from flowad_jax.interrupt import Interrupted

    try:
        if "config" in flags.FLAGS and flags.FLAGS["config"].value is not None:
            check_config(flags.FLAGS["config"].value)  # before a key that is missing is asked for
        job()
    except UserError as error:
        fail(1, error)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise SystemExit(stop.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted before the first batch; nothing was changed", file=sys.stderr)
        raise SystemExit(130) from None


def set_up_logging() -> None:
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
        handler.setFormatter(OneLineFormatter("%(message)s"))
        log.addHandler(handler)


class OneLineFormatter(logging.Formatter):
    """Shows what a message takes from a stranger's file only as text on the same line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.formatMessage`."""
        return one_line(super().formatMessage(record))
