"""Write the page of a run or of several runs beside each other, or list the runs in a folder.

    python report.py outputs/RUN [RUN ...]
    python report.py --list outputs
"""
import argparse
import os
import sys
from pathlib import Path

from src.common.errors import UserError
from src.common.logs import logger
from src.common.script import status_of
from src.settings.parsing import Parser


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("runs", metavar="RUN", nargs="*", type=Path,
                        help="the --train_output_path of train.py, linear_eval.py or finetune.py")
    parser.add_argument("--list", metavar="FOLDER", type=Path, help="print a table of the runs in a folder, best first")
    options = parser.parse_args()
    if bool(options.runs) == bool(options.list):
        raise UserError("takes the folders of runs, or --list and one folder with runs in it; --help shows both")

    from src.report import listing, page, runs
    from src.run.layout import Layout

    if options.list:
        for line in listing.table(runs.below(options.list), options.list):
            logger.info("%s", line)
        return
    folders = {os.path.realpath(folder): folder for folder in options.runs}  # each run once
    summaries = [runs.read(folder) for folder in folders.values()]
    file = Layout(options.runs[0]).report
    page.write(summaries, file)
    logger.info("written: %s", file)


if __name__ == "__main__":
    sys.exit(status_of(main))
