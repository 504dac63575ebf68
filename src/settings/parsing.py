"""Command line and recipe file -> the checked, immutable settings of a script.

A value comes from the command line, else from the recipe (``--config FILE``), else from the flag's
default; ``given`` remembers which were chosen by the user, so that a checkpoint can fill in the rest.
"""
import argparse
import dataclasses
import difflib
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

import yaml

from src.common.errors import UserError
from src.settings.flags import Flags, flags_of
from src.settings.types import BOOLEAN


def _convert(field: dataclasses.Field, value: Any, where: str) -> Any:
    kind = field.metadata["kind"]
    text = "" if value is None else str(value)
    try:
        return kind.convert(text)
    except (ValueError, KeyError, OverflowError):
        got = repr(text) if text else "no value"
        raise UserError(f"{where}{field.name}: got {got}, takes {kind.expects}") from None


def _unknown(name: str, config_class: type, prefix: str, where: str) -> UserError:
    reason = config_class.why_not(name)
    if reason:
        return UserError(f"{prefix}{name}: {where}; {reason}")
    near = difflib.get_close_matches(name, [field.name for field in flags_of(config_class)], n=1)
    hint = f"did you mean {prefix}{near[0]}? " if near else ""
    return UserError(f"{prefix}{name}: {where}; {hint}--help lists all flags")


def _command_line(config_class: type, argv: Optional[List[str]], description: str) -> Dict[str, Any]:
    fields = {field.name: field for field in flags_of(config_class)}
    parser = argparse.ArgumentParser(usage="%(prog)s [--flag value ...]", description=description, allow_abbrev=False,
                                     argument_default=argparse.SUPPRESS,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields.values():
        default = "" if field.default is None else f" (default: {field.default})"
        is_boolean = field.metadata["kind"] is BOOLEAN
        text = f"{field.metadata['help']}; takes {field.metadata['kind'].expects}{default}"
        parser.add_argument(f"--{field.name}", nargs="?", const="True" if is_boolean else None,
                            metavar=field.name.upper(), help=text.replace("%", "%%"))
    known, rest = parser.parse_known_args(argv)
    if rest:
        name, _, value = rest[0].lstrip("-").partition("=")
        value = value or next((text for text in rest[1:2] if not text.startswith("-")), "")
        if not rest[0].startswith("--"):
            raise UserError(f"{rest[0]}: got a value without a flag; flags are written --name value")
        raise _unknown(name, config_class, "--", "unknown flag" + (f" (got {value!r})" if value else ""))
    return {name: _convert(fields[name], value, "--") for name, value in vars(known).items()}


def read_recipe(path: str, config_class: type) -> Dict[str, Any]:
    """Return the checked values of a YAML recipe. A key that is no flag of the script is an error."""
    fields = {field.name: field for field in flags_of(config_class) if field.name != "config"}
    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--config: cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config: {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(recipe, dict):
        raise UserError(f"--config: {path} holds no flags; write lines such as `batch_size: 128`")
    for name in recipe:
        if name not in fields:
            raise _unknown(str(name), config_class, "", f"unknown flag in {path}")
    return {name: _convert(fields[name], value, f"{path}: ") for name, value in recipe.items() if value is not None}


def parse(config_class: type, argv: Optional[List[str]] = None, description: str = "") -> Any:
    """Build the settings of a script from its command line.

    Raises:
        UserError: on an unknown flag, a wrong type, a value out of range or a contradiction.
    """
    given = _command_line(config_class, argv, description)
    recipe = read_recipe(given["config"], config_class) if "config" in given else {}
    values = {**recipe, **given}
    config = config_class(**values, given=frozenset(values))
    config.check()
    return config


def adopt(config: Flags, stored: Dict[str, Any], names: Iterable[str], source: str) -> Any:
    """Take the settings ``names`` from a checkpoint's ``stored`` ones.

    Raises:
        UserError: where the user gave a flag another value than the checkpoint has.
    """
    taken: List[Tuple[str, Any]] = [(name, stored[name]) for name in names if name in stored]
    for name, value in taken:
        if name in config.given and getattr(config, name) != value:
            raise UserError(f"--{name}: got {getattr(config, name)}, but {source} was made with {value}; "
                            "leave the flag out to take the checkpoint's")
    return dataclasses.replace(config, **dict(taken))
