"""Set the options of a command by environment variables: MNIST_PORT=9000 is --port=9000."""

import argparse
import os
import sys
from collections.abc import Collection, Mapping

PREFIX = "MNIST_"
SWITCH = {"true": "--", "1": "--", "false": "--no-", "0": "--no-"}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show the variable and the default of each option."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help if action.default is None else super()._get_help_string(action)
        return text if action.dest == "help" else f"{text} [{_variable(action)}]"


def parse(
    parser: argparse.ArgumentParser, replaced: Mapping[str, Collection[str]]
) -> argparse.Namespace:
    """Parse the command line and the environment variables. The command line wins.

    An unknown variable, or a wrong value of one, ends the program like a wrong option.

    Args:
        parser: The parser. Its options are long ones.
        replaced: For an option, the options that it makes the program ignore. If one of these is on
            the command line, the variable of the former has no effect.
    """
    # This prints the help if asked, even if a variable is wrong.
    line = vars(parser.parse_args(namespace=_without_defaults(parser)))
    actions = {_variable(action): action for action in parser._actions if action.dest != "help"}
    arguments = []
    for variable in sorted(name for name in os.environ if name.startswith(PREFIX)):
        if variable not in actions:
            from difflib import get_close_matches  # only here: it would slow down every start

            [nearest] = get_close_matches(variable, actions, n=1, cutoff=0)
            parser.error(f"there is no environment variable {variable}; did you mean {nearest}?")
        argument = _argument(parser, variable, actions[variable])
        if all(line[name] is None for name in replaced.get(actions[variable].dest, ())):
            arguments.append(argument)
    return parser.parse_args([*arguments, *sys.argv[1:]])


def _without_defaults(parser: argparse.ArgumentParser) -> argparse.Namespace:
    return argparse.Namespace(**{action.dest: None for action in parser._actions})


def _variable(action: argparse.Action) -> str:
    return f"{PREFIX}{action.dest.upper()}"


def _argument(parser: argparse.ArgumentParser, variable: str, action: argparse.Action) -> str:
    """Return the argument for the command line that equals a variable."""
    value, name = os.environ[variable], action.dest.replace("_", "-")
    if action.nargs == 0:
        if value not in SWITCH:
            parser.error(f"{variable} is {value!r}; it must be true or false")
        return f"{SWITCH[value]}{name}"
    if not value:
        parser.error(f"{variable} is empty; remove it or give it a value")
    argument = f"--{name}={value}"
    parser.exit_on_error = False  # the parser's own message would name the option
    try:
        parser.parse_args([argument])
    except argparse.ArgumentError as error:
        parser.error(f"{variable}: {error.message}")
    parser.exit_on_error = True
    return argument
