"""`python -m sdlib`: generate images, look into files, train, film a walk."""

import argparse
import os
import sys

from sdlib.commands import generate, info, plane, train


def parser() -> argparse.ArgumentParser:
    """The command line and its subcommands."""
    top = argparse.ArgumentParser(
        prog="sdlib", description="Diffusion models, from points on a spiral upward."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for room in (generate, info, plane, train):
        room.register(commands)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if it went well, 2 with a sentence on stderr if it was asked wrongly."""
    args = parser().parse_args(arguments)
    try:
        status = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever reads the output, `head` say, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        message = f"{args.command} needs {error.name}: pip install 'sdlib[book]'."
    except (ValueError, OSError) as error:
        message = str(error)
    except KeyboardInterrupt:
        message = "interrupted; the same command with --resume goes on from the last checkpoint."
        if args.command != "train":
            message = "interrupted."
    print(f"sdlib: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
