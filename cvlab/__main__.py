"""`python -m cvlab doctor`, `python -m cvlab run CHAPTER` and `python -m cvlab data check PATH`."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from cvlab import run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cvlab", description="Run chapters, and see what runs here.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("doctor", help="say what is here to build and run the book with")
    one = commands.add_parser("run", help="execute one chapter headless")
    one.add_argument("chapter", nargs="?", default="", help="its name, such as week1/transfer_learning")
    one.add_argument("--profile", default="quick", help="a file of chapters/profiles/ (default: quick)")
    one.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter; a relative path, or one with ~, is looked up from the folder that you are in",
    )
    one.add_argument(
        "-o",
        "--output",
        type=Path,
        help="the notebook to write, whose name ends in .ipynb (default: runs/CHAPTER-PROFILE.ipynb of the book); an "
        "earlier run is replaced, any other file is not",
    )
    own = commands.add_parser("data", help="see what is wrong with data of your own")
    own = own.add_subparsers(dest="action", required=True, metavar="check").add_parser("check", help="list all faults")
    own.add_argument("path", help="a folder or zip archive: images in class folders, Pascal VOC, COCO or label maps")
    own.add_argument("--kind", choices=("folder", "voc", "coco", "masks"), help="what it is (default: recognized)")
    options = parser.parse_args(arguments)
    try:
        if options.command == "doctor":
            return 0 if run.doctor() else 1
        if options.command == "data":
            from cvlab import audit

            return audit.check(options.path, options.kind)
        name = run.find_chapter(options.chapter)
        parameters = run.settings(name, options.profile, options.parameter)
        output = options.output or run.book_root() / "runs" / f"{name}-{options.profile}.ipynb"
        output = output.expanduser()
        written = "written in place of an earlier run to" if output.exists() else "written to"
        line = run.Progress(f"{name} ({options.profile})", run.read_notebook(name), sys.stderr)
        with line if sys.stderr.isatty() else contextlib.nullcontext() as progress:
            told = run.execute(name, output, parameters, progress)
        print(f"{name} ({options.profile}): {told['seconds']:.0f} s, {written} {output}")
        for said in run.summary(told["claims"]):
            print(said)
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
        print(f"run: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("run: stopped; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
