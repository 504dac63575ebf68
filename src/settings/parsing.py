"""Command line and recipe file -> what the user gave of a script's settings.

A value comes from the command line, else from the recipe (``--config FILE``), else from the flag's default.
"""
import argparse
import dataclasses
import difflib
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional

import yaml

from src.common.errors import UserError
from src.common.files import reading
from src.settings.given import Given, Group, flags_of
from src.settings.types import BOOLEAN


class Parser(argparse.ArgumentParser):
    """A command line whose errors are a user's, in one line: that of the scripts without a recipe."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help shows what it takes")


def _convert(field: dataclasses.Field, value: Any, where: str) -> Any:
    takes = field.metadata["takes"]
    text = "" if value is None else str(value)
    try:
        return takes.convert(text)
    except (ValueError, KeyError, OverflowError):
        got = repr(text) if text else "no value"
        raise UserError(f"{where}{field.name}: got {got}, takes {takes.expects}") from None


def _unknown(name: str, settings_type: type, prefix: str, where: str) -> UserError:
    reason = settings_type.why_not(name)
    if reason:
        return UserError(f"{prefix}{name}: {where}; {reason}")
    near = difflib.get_close_matches(name, [field.name for field in flags_of(settings_type)], n=1)
    hint = f"did you mean {prefix}{near[0]}? " if near else ""
    return UserError(f"{prefix}{name}: {where}; {hint}--help lists all flags")


def _parser(settings_type: type, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(usage="%(prog)s [--flag value ...]", description=description, allow_abbrev=False,
                                     argument_default=argparse.SUPPRESS,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    groups = {group: parser.add_argument_group(group.value) for group in Group}
    for field in flags_of(settings_type):
        about, is_boolean = field.metadata, field.metadata["takes"] is BOOLEAN
        default = "" if about["default"] is None else f" (default: {about['default']})"
        text = f"{about['help']}; takes {about['takes'].expects}{default}"
        groups[about["group"]].add_argument(f"--{field.name}", nargs="?", const="True" if is_boolean else None,
                                            metavar=field.name.upper(), help=text.replace("%", "%%"))
    return parser


def _command_line(settings_type: type, argv: Optional[List[str]], description: str) -> Dict[str, Any]:
    fields = {field.name: field for field in flags_of(settings_type)}
    known, rest = _parser(settings_type, description).parse_known_args(argv)
    if rest:
        name, _, value = rest[0].lstrip("-").partition("=")
        value = value or next((text for text in rest[1:2] if not text.startswith("-")), "")
        if not rest[0].startswith("--"):
            raise UserError(f"{rest[0]}: got a value without a flag; flags are written --name value")
        raise _unknown(name, settings_type, "--", "unknown flag" + (f" (got {value!r})" if value else ""))
    return {name: _convert(fields[name], value, "--") for name, value in vars(known).items()}


def read_recipe(path: str, settings_type: type) -> Dict[str, Any]:
    """Return the checked values of a YAML recipe. A key that is no flag of the script is an error."""
    fields = {field.name: field for field in flags_of(settings_type) if field.name != "config"}
    try:
        with reading(f"--config: {path}", "name a YAML file of flags"):
            recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config: {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(recipe, dict):
        raise UserError(f"--config: {path} holds no flags; write lines such as `batch_size: 128`")
    for name in recipe:
        if name not in fields:
            raise _unknown(str(name), settings_type, "", f"unknown flag in {path}")
    return {name: _convert(fields[name], value, f"{path}: ") for name, value in recipe.items() if value is not None}


def parse(settings_type: type, argv: Optional[List[str]] = None, description: str = "") -> Given:
    """Return what the user gave on the command line ``argv``, by default the process's.

    Raises:
        UserError: on an unknown flag, a wrong type, a value out of range or a contradiction.
    """
    chosen = _command_line(settings_type, argv, description)
    recipe = read_recipe(chosen["config"], settings_type) if "config" in chosen else {}
    given = Given(settings_type, {**recipe, **chosen})
    settings_type.check(given)
    return given
