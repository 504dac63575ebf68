"""Command line and recipe -> what the user gave of a script's settings.

A value comes from the command line, else from the recipe (``--config FILE``), else from the flag's default.
"""
import argparse
import dataclasses
import difflib
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional

import yaml

from src.common.errors import UserError
from src.common.files import read_text
from src.settings.given import Given, Group, flags_of
from src.settings.types import BOOLEAN, shown

_SUCH_LINES = "write lines such as `batch_size: 128`"
# What people look for under the names of the model zoo's scripts, and what there is instead.
_INSTEAD = {
    "use_crop": "train.py has --crop_min_scale, 1 for whole images",
    "use_flip": "train.py has --flip_probability, 0 for none",
    "use_color_jitter": "train.py has --jitter_strength, 0 for none",
    "use_color_gray": "train.py has --grayscale_probability, 0 for none",
    "use_blur": "train.py has --blur_probability, 0 for none",
    "use_norm": "train.py has --normalize, and its checkpoints keep it"}


class Parser(argparse.ArgumentParser):
    """A command line whose errors are a ``UserError`` of one line. Scripts without recipes use it as it is."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help shows what it takes")


def _convert(field: dataclasses.Field, text: Optional[str], name: str) -> Any:
    takes = field.metadata["takes"]
    try:
        return takes.convert(text or "")
    except ValueError:
        raise UserError(f"{name}: got {shown(text) if text else 'no value'}, takes {takes.expects}") from None


def _unknown(name: str, settings_type: type, place: str) -> UserError:
    near = difflib.get_close_matches(name, [field.name for field in flags_of(settings_type)], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    remedy = _INSTEAD.get(name, f"{hint}--help lists all flags")
    return UserError(f"{place}{name[:60]}: no such flag; {remedy}")


def _parser(settings_type: type, description: str) -> argparse.ArgumentParser:
    parser = Parser(usage="%(prog)s [--flag value ...]", description=description, allow_abbrev=False,
                    argument_default=argparse.SUPPRESS, formatter_class=argparse.RawDescriptionHelpFormatter)
    groups = {group: parser.add_argument_group(group.value) for group in Group}
    for field in flags_of(settings_type):
        about, is_boolean = field.metadata, field.metadata["takes"] is BOOLEAN
        default = "" if about["default"] is None else f" (default: {about['default']})"
        default = " (required)" if about["required"] else default
        text = f"{about['help']}; takes {about['takes'].expects}{default}"
        # A bare --resume is True; a bare flag of another type is None, which _convert refuses.
        groups[about["group"]].add_argument(f"--{field.name}", nargs="?", const="True" if is_boolean else None,
                                            metavar=field.name.upper(), help=text.replace("%", "%%"))
    return parser


def read_recipe(path: str, settings_type: type) -> Dict[str, Any]:
    """Return the values of a recipe, a flat YAML mapping from flags to values. A flag with null is left out."""
    source = f"--config: {path}"
    text = read_text(Path(path), source, "name a YAML file of flags", 2**16)  # bytes; PyYAML reads them in a second
    try:
        # Only nodes, which keep a scalar's text: the flag's own type decides what it means (YAML 1.1 takes `yes` for
        # True, 010 for 8, and 1e-3 for a string). Nothing is built of them, so tags and aliases can do no harm.
        document = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"{source}: is not YAML ({' '.join(str(error).split())}); {_SUCH_LINES}") from None
    if not isinstance(document, yaml.MappingNode) or not document.value:
        raise UserError(f"{source}: has no flags; {_SUCH_LINES}")
    fields = {field.name: field for field in flags_of(settings_type) if field.name != "config"}
    values: Dict[str, Any] = {}
    for name, value in document.value:
        place = f"{source}, line {name.start_mark.line + 1}"
        if not isinstance(name, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            raise UserError(f"{place}: has a list or a mapping, takes one value for each flag; {_SUCH_LINES}")
        if name.value not in fields:
            raise _unknown(name.value, settings_type, f"{place}: ")
        if name.value in values:
            raise UserError(f"{place}: {name.value} is given twice; give it once")
        is_null = value.tag == "tag:yaml.org,2002:null"
        values[name.value] = None if is_null else _convert(fields[name.value], value.value, f"{place}: {name.value}")
    return {name: value for name, value in values.items() if value is not None}


def parse(settings_type: type, argv: Optional[List[str]] = None, description: str = "") -> Given:
    """Return what the user gave on the command line ``argv``, by default the process's, and in the recipe.

    A flag that is unknown, missing, wrong or contradicts another raises UserError.
    """
    fields = {field.name: field for field in flags_of(settings_type)}
    known, rest = _parser(settings_type, description).parse_known_args(argv)
    if rest and rest[0].startswith("--"):
        raise _unknown(rest[0][2:].partition("=")[0], settings_type, "--")
    if rest:
        raise UserError(f"{shown(rest[0])}: got a value without a flag; write --name value or --name=value")
    converted = {name: _convert(fields[name], value, f"--{name}") for name, value in vars(known).items()}
    chosen = {name: value for name, value in converted.items() if value is not None}
    recipe = read_recipe(chosen["config"], settings_type) if "config" in chosen else {}
    given = Given(settings_type, {**recipe, **chosen})
    for field in fields.values():
        if field.metadata["required"] and not given[field.name]:
            raise given.refusal(field.name, f"and is required: {field.metadata['help']}")
    settings_type.check(given)
    return given
