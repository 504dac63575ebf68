"""Say what a data folder holds, or what is wrong with it, before anything is trained.

    python scripts/check_data.py DATA_SET FOLDER
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from src.logs import logger, status_of


def main() -> None:
    from src import dataset
    from src.errors import UserError
    if len(sys.argv) != 3 or sys.argv[1] not in dataset.DATA_SETS:
        raise UserError(f"usage: python scripts/check_data.py {{{','.join(dataset.DATA_SETS)}}} FOLDER")
    name, folder = sys.argv[1:]
    classes = dataset.DATA_SETS[name].classes
    for split in ("train", "test"):
        labels = dataset.load(name, folder, split).labels
        logger.info("  %s", ", ".join(f"{(labels == label).sum()} {title}" for label, title in enumerate(classes)))


if __name__ == "__main__":
    sys.exit(status_of(main))
