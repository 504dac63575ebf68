"""Command line and recipe file -> what the user gave of a script's settings.

A value comes from the command line, else from the recipe (``--config FILE``), else from the flag's default.
"""
import argparse
import dataclasses
import difflib
from pathlib import Path
from typing import Any, Dict, Iterator, List, NoReturn, Optional, Tuple

import yaml

from src.common.errors import UserError
from src.common.files import read_text
from src.settings.given import Given, Group, flags_of
from src.settings.types import BOOLEAN, shown

_LARGEST_RECIPE = 2**16  # bytes, of which some 200,000 are parsed in a second
_SUCH_LINES = "write lines such as `batch_size: 128`"
_LONGEST_SHOWN = 60  # characters of an unknown flag
_OPEN = ("", "~", "null", "Null", "NULL")  # what YAML calls null: the flag is left out
_AROUND = (yaml.StreamStartEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent, yaml.StreamEndEvent)


class Parser(argparse.ArgumentParser):
    """A command line whose errors are a user's, in one line: that of the scripts without a recipe."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help shows what it takes")


def _convert(field: dataclasses.Field, text: Optional[str], where: str) -> Any:
    takes = field.metadata["takes"]
    try:
        return takes.convert(text or "")
    except (ValueError, KeyError):
        got = shown(text) if text else "no value"
        raise UserError(f"{where}{field.name}: got {got}, takes {takes.expects}") from None


def _unknown(name: str, settings_type: type, prefix: str, where: str) -> UserError:
    near = difflib.get_close_matches(name, [field.name for field in flags_of(settings_type)], n=1)
    hint = f"did you mean {prefix}{near[0]}? " if near else ""
    remedy = settings_type.why_not(name) or f"{hint}--help lists all flags"
    in_short = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}..."
    return UserError(f"{prefix}{in_short}: {where}; {remedy}")


def _parser(settings_type: type, description: str) -> argparse.ArgumentParser:
    parser = Parser(usage="%(prog)s [--flag value ...]", description=description, allow_abbrev=False,
                    argument_default=argparse.SUPPRESS, formatter_class=argparse.RawDescriptionHelpFormatter)
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
            raise UserError(f"{shown(rest[0])}: got a value without a flag; flags are written --name value, or "
                            "--name=value where it begins with -")
        raise _unknown(name, settings_type, "--", "unknown flag" + (f" (got {shown(value)})" if value else ""))
    return {name: _convert(fields[name], value, "--") for name, value in vars(known).items()}


def read_recipe(path: str, settings_type: type) -> Dict[str, Any]:
    """Return the checked values of a YAML recipe. A key that is no flag of the script is an error."""
    source = f"--config: {path}"
    fields = {field.name: field for field in flags_of(settings_type) if field.name != "config"}
    texts: Dict[str, Optional[str]] = {}
    for name, value in _entries(read_text(Path(path), source, "name a YAML file of flags", _LARGEST_RECIPE), source):
        if _oddity(name):
            raise UserError(f"{source}, line {name.start_mark.line + 1}: got {_oddity(name)}, takes flags with their "
                            f"values; {_SUCH_LINES}")
        if name.value not in fields:
            raise _unknown(name.value, settings_type, "", f"unknown flag in {path}")
        if name.value in texts:
            raise UserError(f"{path}: {name.value}: stands there twice; give it once")
        if _oddity(value):
            raise UserError(f"{path}: {name.value}: got {_oddity(value)}, takes "
                            f"{fields[name.value].metadata['takes'].expects}")
        texts[name.value] = None if value.style is None and value.value in _OPEN else value.value
    if not texts:
        raise UserError(f"{source} holds no flags; {_SUCH_LINES}")
    return {name: _convert(fields[name], text, f"{path}: ") for name, text in texts.items() if text is not None}


def _entries(text: str, source: str) -> Iterator[Tuple[yaml.Event, yaml.Event]]:
    """Yield the events of YAML for each name and value of a mapping, as far as the caller wants them.

    Nothing is built of them, so neither depth nor aliases nor tags can do harm.
    """
    events = (event for event in yaml.parse(text, Loader=yaml.SafeLoader) if not isinstance(event, _AROUND))
    try:
        first = next(events, None)
        if isinstance(first, yaml.MappingStartEvent) and not first.tag:
            yield from zip(events, events)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter of numbers in directives and escapes
        raise UserError(f"{source} is not YAML: {' '.join(str(error).split())}; {_SUCH_LINES}") from None


def _oddity(event: yaml.Event) -> Optional[str]:
    """Say what an event is that is no name and no value of a recipe; None where it is one."""
    if isinstance(event, yaml.ScalarEvent):
        return f"the tag {shown(event.tag)}" if event.tag else None
    return {yaml.SequenceStartEvent: "a list", yaml.MappingStartEvent: "a mapping",
            yaml.AliasEvent: "an alias"}.get(type(event), "another document")


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
