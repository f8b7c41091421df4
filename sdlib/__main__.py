"""`python -m sdlib`: generate images, look into files, train, film a walk."""

import argparse
import sys

from sdlib.commands import (
    close_broken_streams,
    generate,
    info,
    open_streams,
    out_of_memory,
    plane,
    tell,
    train,
)


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
    open_streams()
    try:
        return run(parser().parse_args(arguments))
    finally:
        close_broken_streams()


def run(args: argparse.Namespace) -> int:
    """What `main` does with arguments that could be read."""
    try:
        status = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever reads the output, `head` say, has closed the pipe
        return 0
    except ModuleNotFoundError as error:
        message = f"{args.command} needs {error.name}: pip install 'sdlib[book]'."
    except (ValueError, OSError) as error:
        message = str(error)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        message = f"there is too little memory for this ({str(error).strip():.200})."
    except KeyboardInterrupt:
        message = "interrupted; the same command with --resume goes on from the last checkpoint."
        if args.command != "train":
            message = "interrupted."
    tell(message)
    return 2


if __name__ == "__main__":
    sys.exit(main())
