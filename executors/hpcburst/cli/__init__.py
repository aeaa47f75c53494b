"""The `hpcburst` command.

Verbs of front ends and recipes come by entry points (group `hpcburst.commands`).
"""
