"""Pools of pilots.

`planner` decides (pure); `keeper` keeps the backlog and does what was decided; `line` talks to a
pilot; `cluster` is the Dask cluster users hold, and the only door to dask-jobqueue; `record`
remembers what a run was.
"""
