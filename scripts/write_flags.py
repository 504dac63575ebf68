"""Write docs/flags.md from the flags in src/settings/.

    python scripts/write_flags.py
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from src.common.files import write_text
from src.settings.given import Group, flags_of
from src.settings.scripts import SCRIPTS

ROOT = Path(__file__).resolve().parent.parent

HEAD = """# Flags

Written by `scripts/write_flags.py` from `src/settings/`; a test compares them.

Flags are written `--name value`; booleans take `True` or `False` in any case, and `--name` alone means `True`. Of
several values of one flag, the last counts. A recipe (`--config FILE`) is a YAML file of flags without the dashes, each
with one value as on the command line, or with `null` to leave the flag out; the command line wins. A flag that is
unknown, missing, of a wrong type or out of range ends the script with one line and exit status 2 before it writes
anything.

An empty default means that there is none, or that the description gives it. Flags of the network have no default where
a checkpoint knows the network (`linear_eval.py`, `finetune.py`, `export.py`, and `train.py --pre_trained_path`): they
need not be repeated there, and a value that contradicts the checkpoint is an error that names both. The data set may
differ from the encoder's.

The last column says what a flag is about. A run is resumed with the same network and the same learning, and with any
circumstances.
"""


def page() -> str:
    """Return the text of docs/flags.md."""
    lines = [HEAD]
    for script, settings_type in SCRIPTS.items():
        lines.append(f"## {script}\n")
        for group in Group:
            flags = [field for field in flags_of(settings_type) if field.metadata["group"] is group]
            if flags:
                lines += [f"**{group.value[0].upper()}{group.value[1:]}**\n",
                          "| flag | default | takes | what it is | about |", "| --- | --- | --- | --- | --- |",
                          *map(_row, flags), ""]
    return "\n".join(lines)


def _row(field) -> str:
    about = field.metadata
    default = "" if about["default"] is None else f"`{about['default']}`"
    default = "required" if about["required"] else default
    return f"| `--{field.name}` | {default} | {about['takes'].expects} | {about['help']} | {about['role'].value} |"


if __name__ == "__main__":
    write_text(ROOT / "docs" / "flags.md", page())
