"""Classify images with an exported model or a checkpoint, or take their features.

    python predict.py outputs/simclr.onnx cat.jpg holidays/
    python predict.py outputs cat.jpg --neighbours holidays --picture similar.png
    python predict.py outputs/simclr.onnx holidays --features holidays.npz
"""
import argparse
import sys
from pathlib import Path
from typing import Any, Iterable, Set

from src.common.errors import SomeFailedError, UserError
from src.common.logs import log_to_console, logger
from src.common.script import status_of
from src.settings.parsing import Parser


def parsed() -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help="an ONNX or MINDIR file of export.py, the checkpoint of an "
                        "encoder, or the folder of a run")
    parser.add_argument("images", metavar="IMAGE|FOLDER", nargs="+", help="JPEG and PNG files, or folders with some")
    parser.add_argument("--classifier", metavar="FILE", help="checkpoint of linear_eval.py or finetune.py for a "
                        "checkpoint; by default the one in the same run")
    parser.add_argument("--json", action="store_true", help="print an object for every image, one a line")
    parser.add_argument("--features", metavar="FILE", type=Path, help="write the features to a .npz or .csv file "
                        "instead, with file names, and with labels where the images are in folders of FOLDER")
    parser.add_argument("--neighbours", metavar="FOLDER", help="add the most similar images of a folder")
    parser.add_argument("--picture", metavar="FILE", type=Path, help="draw the first 50 answers as a PNG file too")
    parser.add_argument("--device_target", choices=("Ascend", "GPU", "CPU"), help="for anything but ONNX; by default "
                        "Ascend where one is present, else CPU")
    options = parser.parse_args()
    if options.features and (options.json or options.neighbours or options.picture):
        raise UserError("--features: writes a file and no answers; leave --json, --neighbours and --picture out")
    if options.features and options.features.suffix not in (".npz", ".csv"):
        raise UserError(f"--features: got {options.features}, takes a file that ends in .npz or .csv")
    if options.picture and options.picture.suffix != ".png":
        raise UserError(f"--picture: got {options.picture}, takes a file that ends in .png")
    return options


def main() -> None:
    log_to_console(sys.stderr)  # standard output is for the answers
    options = parsed()

    # These take the time of their imports, which --help and mistakes in the arguments need not wait for.
    from src.deploy import answers, predicting

    images = predicting.find_images(options.images)
    compared = predicting.find_images([options.neighbours], "neighbours") if options.neighbours else []
    answers.check_place(options.features, "features")
    answers.check_place(options.picture, "picture")
    if not options.model.endswith(predicting.ONNX):
        from src.device import environment
        environment.prepare(options.device_target, 0)
    model = predicting.open_model(options.model, options.classifier)
    if model.signature.classes is None and not (options.features or compared):
        raise UserError(f"MODEL: {options.model} is an encoder without a classifier; add --features or --neighbours, "
                        "or train a classifier first (linear_eval.py)")
    failed: Set[str] = set()

    def on_error(error: UserError) -> None:
        if str(error) not in failed:  # an image may also be among the neighbours
            logger.warning("%s", error)
        failed.add(str(error))

    given = predicting.answers(model, images, on_error)
    if options.features:
        shape = answers.write_features(options.features, given)
        logger.info("%s: of %d images %d features each", options.features, *shape)
    else:
        neighbours = answers.Neighbours(predicting.answers(model, compared, on_error)) if compared else None
        show(options, given, model.signature, neighbours, max(len(str(image.file)) for image in images))
    if failed:
        raise SomeFailedError(f"{len(failed)} images could not be read; they are named above, and the others are done")


def show(options: argparse.Namespace, given: Iterable, signature: Any, neighbours: Any, file_width: int) -> None:
    """Print the answers while they come, and draw the first ones."""
    from src.deploy import answers

    class_width = max(map(len, signature.classes or [""]))
    first, count = [], 0
    for count, answer in enumerate(given, 1):
        meaning = answers.interpret(answer, signature, neighbours)
        sys.stdout.write(answers.as_json(answer, meaning) if options.json else
                         answers.as_text(answer, meaning, file_width, class_width))
        if options.picture and count <= answers.ROWS:
            first.append((answer, meaning))
    if not count:
        raise UserError(answers.NO_IMAGES)
    if options.picture:
        answers.write_picture(options.picture, first, signature)
        logger.info("%s: a picture of %d images", options.picture, len(first))


if __name__ == "__main__":
    sys.exit(status_of(main))
