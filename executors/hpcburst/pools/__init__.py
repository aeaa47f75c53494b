"""Pools of pilots: `planner` decides (pure), `keeper` keeps the backlog and does, `line` talks to a
pilot, `cluster` is the Dask cluster users hold and the only door to dask-jobqueue, `record` remembers.
"""
