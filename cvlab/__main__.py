"""`python -m cvlab doctor · run CHAPTER · sweep CHAPTER · grade FOLDER · data check PATH`.

The exit status says how it went:

0    all is well: every claim that was checked holds, every run of a sweep is there, every submission has its row
1    a cell failed, a result could not be written, or something is missing on this machine
2    the command line asks for something that can't be had; nothing was executed
3    all was executed, and claims of the text do not hold with these parameters
130  stopped by Ctrl-C
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cvlab import run

CLAIMS_FAILED = 3
STOPPED = 130
SECONDS_BETWEEN_LINES = 30  # of progress, where the output is no terminal but a log


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(arguments)
    try:
        return options.do(options)
    except run.CommandError as error:
        print(error, file=sys.stderr)
        return 2
    except run.ChapterFailed as error:
        print(f"run: {error}; the notebook as far as it got is {error.notebook}", file=sys.stderr)
        return 1
    except run.NotWritten as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{options.command}: stopped; {options.when_stopped}", file=sys.stderr)
        return STOPPED


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line: a namespace whose `do` is the function of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m cvlab",
        description="Run chapters, and see what runs here.",
        epilog="Exit status: 0 all is well, 1 a cell or a machine failed, 2 a wrong request, 3 claims do not hold with "
        "these parameters, 130 stopped.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("doctor", help="say what is here to build and run the book with")
    command.set_defaults(do=doctor, when_stopped="nothing was changed")

    command = commands.add_parser("run", help="execute one chapter headless")
    command.add_argument("chapter", nargs="?", default="", help="its name, such as week1/transfer_learning")
    add_parameters(command)
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        help="the notebook to write, whose name ends in .ipynb (default: runs/CHAPTER-PROFILE.ipynb of the book); an "
        "earlier run is replaced, any other file is not. Its metrics lie beside it, as .metrics.json",
    )
    command.add_argument(
        "--devices", type=positive, metavar="N", help="GPUs that share each batch of a training (default: 1)"
    )
    command.set_defaults(do=run_chapter, when_stopped="no notebook was written")

    command = commands.add_parser(
        "sweep",
        help="execute one chapter with many parameters, on this machine or a Dask cluster",
        description="Execute a chapter with every combination of the grid's values. Runs that are complete are not run "
        "again: whatever stopped a sweep, the same command goes on.",
    )
    command.add_argument("chapter", help="its name, such as week3/evaluation")
    command.add_argument(
        "--grid", nargs="+", required=True, metavar="NAME=VALUES", help="such as learning_rate=1e-3,1e-2 seed=0..4"
    )
    add_parameters(command)
    command.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask cluster (default: a cluster on this machine)"
    )
    command.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="how many to start (default: one for each GPU, or core with 3 GB of memory), or to wait for at ADDRESS",
    )
    command.add_argument(
        "-o", "--output", type=Path, help="the sweep's folder (default: runs/sweeps/CHAPTER-PROFILE of the book)"
    )
    command.set_defaults(do=sweep_chapter, when_stopped="what is complete is kept, and the same command goes on")

    command = commands.add_parser(
        "grade",
        help="run the exercises of submitted notebooks, each with limits, and write a row for each",
        description="Only the answers' cells are taken of a submission; they run in the book's own copy of the lesson. "
        "The code runs as you: grade strangers' code in a container (see the book's page on running headless).",
    )
    command.add_argument("folder", type=Path, help="of the submissions, .ipynb files; folders in it are searched too")
    command.add_argument("--lesson", help="the lesson that they all are (default: told from each)")
    command.add_argument("--minutes", type=float, default=15, help="for one submission (default: 15)")
    command.add_argument("--answer-seconds", type=float, default=60, help="for one answer (default: 60)")
    command.add_argument("--memory", type=float, default=4, help="GiB of one submission (default: 4)")
    command.add_argument("--workers", type=positive, default=1, metavar="N", help="at the same time (default: 1)")
    command.add_argument(
        "-o", "--output", type=Path, default=Path("grades.csv"), help="the table to write (default: grades.csv)"
    )
    command.set_defaults(do=grade_folder, when_stopped="the rows so far are in the table")

    command = commands.add_parser("data", help="see what is wrong with data of your own")
    actions = command.add_subparsers(dest="action", required=True, metavar="check")
    command = actions.add_parser("check", help="list all faults")
    command.add_argument("path", help="a folder or zip archive: images in class folders, Pascal VOC, COCO, label maps")
    command.add_argument("--kind", choices=("folder", "voc", "coco", "masks"), help="what it is (default: recognized)")
    command.set_defaults(do=check_data, when_stopped="nothing was changed")
    return parser.parse_args(arguments)


def add_parameters(command: argparse.ArgumentParser) -> None:
    """Add the options that say with which parameters a chapter is executed."""
    command.add_argument("--profile", default="quick", help="a file of chapters/profiles/ (default: quick)")
    command.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter; a relative path, or one with ~, is looked up from the folder that you are in",
    )


def doctor(options: argparse.Namespace) -> int:
    return 0 if run.doctor() else 1


def check_data(options: argparse.Namespace) -> int:
    from cvlab import audit

    return audit.check(options.path, options.kind)


def run_chapter(options: argparse.Namespace) -> int:
    """Execute one chapter, write its notebook and its metrics, and say where they are."""
    from cvlab import records

    name = run.find_chapter(options.chapter)
    parameters = run.settings(name, options.profile, options.parameter)
    output = options.output or run.book_root() / "runs" / f"{name}-{options.profile}.ipynb"
    output = output.expanduser()
    written = "written in place of an earlier run to" if output.exists() else "written to"
    label = f"{name} ({options.profile})"
    if options.devices:
        os.environ["CVLAB_DEVICES"] = str(options.devices)  # for the kernel, see cvlab.learn.optimize
    with run.Progress(label, run.read_notebook(name), sys.stderr, SECONDS_BETWEEN_LINES) as progress:
        measured = records.execute(name, options.profile, parameters, output, progress)
    print(f"{label}: {measured['seconds']:.0f} s, {written} {output}")
    for said in run.summary(measured["counts"]):
        print(said)
    return CLAIMS_FAILED if measured["counts"]["failed"] else 0


def sweep_chapter(options: argparse.Namespace) -> int:
    """Run a sweep, and say where its table is."""
    from cvlab import sweep

    name = run.find_chapter(options.chapter)
    output = options.output or run.book_root() / "runs" / "sweeps" / f"{name}-{options.profile}"
    output = output.expanduser()
    grid = sweep.expand(options.grid)
    try:
        rows = sweep.sweep(
            name, options.profile, grid, options.parameter, output, options.scheduler, options.workers, print_now
        )
    except sweep.Stopped as error:
        print(error, file=sys.stderr)
        return 1
    failed = sum(row["outcome"] not in ("held", "claims failed") for row in rows)
    claims = sum(row["claims_failed"] > 0 for row in rows)
    print(f"{len(rows)} rows written to {output}/results.parquet, .csv and .png")
    if claims:
        print(f"{claims} runs have claims that do not hold with their parameters: see claims_failed")
    if failed:
        print(f"{failed} runs failed: see error; the same command tries them again")
    return 1 if failed else CLAIMS_FAILED if claims else 0


def grade_folder(options: argparse.Namespace) -> int:
    """Grade a folder of submissions, and say where the table is."""
    from cvlab import grade

    name = run.find_chapter(options.lesson) if options.lesson else None
    limits = grade.limits_of(options.minutes, options.memory, options.answer_seconds)
    target = options.output.expanduser()
    if not target.parent.is_dir():
        raise run.CommandError(
            f"grade: output is {str(target)!r}, and there is no folder {target.parent}; make it first"
        )
    rows = grade.grade(options.folder.expanduser(), target, name, limits, options.workers, print_now)
    print(f"{len(rows)} rows written to {target}")
    return 0


def print_now(line: str) -> None:
    """Print a line of progress at once, as a log may be read while it is written."""
    print(line, flush=True)


def positive(text: str) -> int:
    """Read a number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
