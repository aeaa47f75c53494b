"""A small local conda channel, for machines that reach PyPI but no conda channel.

It is made of the Python interpreters found on this machine and of wheels from PyPI:

    find_pythons -> build_channel -> a `file://` url for the `channels:` of an environment file

The files, in the order of the flow: `interpreters` finds Pythons, `relocate` makes one movable,
`metadata` reads what a wheel states (pure), `wheels` fetches and unpacks them, `archive` packs what
was staged into `.conda` files, `build` runs all of it at once and publishes, `smoke` installs the
result once to prove it.
"""

from hpcburst_recipes.channel.build import build_channel
from hpcburst_recipes.channel.interpreters import FoundPython, find_pythons
from hpcburst_recipes.channel.publish import Channel

__all__ = ["Channel", "FoundPython", "build_channel", "find_pythons"]
