"""How fast? Tables of ratios that hold on a machine whose speed drifts.

`rounds` takes the time of variants that take turns, each in a process of its own; `table` is what
all commands print; `material` is what they work on. A command is one module, which makes variants,
hands them to `rounds.take_turns`, and makes a table of the figures.
"""
