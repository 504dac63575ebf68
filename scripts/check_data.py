"""Check a data folder before training: say what it holds, or what is wrong with it.

    python scripts/check_data.py DATA_SET FOLDER
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from src.common.logs import logger
from src.common.script import status_of

FEW_CLASSES = 20  # up to which the size of each class is shown


def main() -> None:
    import numpy as np

    from src import dataset
    from src.common.errors import UserError
    from src.data.image_files import ImageFiles
    if len(sys.argv) != 3 or sys.argv[1] not in dataset.DATA_SETS:
        raise UserError(f"usage: python scripts/check_data.py {{{','.join(dataset.DATA_SETS)}}} FOLDER")
    name, folder = sys.argv[1:]
    splits = ["pretrain"] * dataset.DATA_SETS[name].has_unlabelled + ["train", "test"]
    for split in splits:
        pixels, labels, classes = dataset.load(name, folder, split)
        if split == "pretrain" and (labels >= 0).all():
            continue  # the same images as train
        counts = np.bincount(labels[labels >= 0], minlength=len(classes))
        if not classes:
            logger.info("  %d images", len(labels))
        elif len(classes) <= FEW_CLASSES:
            logger.info("  %s", ", ".join(f"{count} {title}" for count, title in zip(counts, classes)))
        else:
            logger.info("  %d classes of %d to %d images", len(classes), counts.min(), counts.max())
        if isinstance(pixels, ImageFiles):
            pixels.check()
            logger.info("  all files can be decoded")
        if split == "pretrain" and (labels < 0).all():
            logger.info("  no labels: enough for train.py, but linear_eval.py and finetune.py take a folder of images "
                        "per class")
            splits.remove("train")
            if not dataset.DATA_SETS[name].format.find(Path(folder), "test"):
                splits.remove("test")


if __name__ == "__main__":
    sys.exit(status_of(main))
