"""`hpcburst prefect up`: a Prefect server and a worker for one user or one group.

`settings` says how both are set up (pure), `place` where their files lie, `processes` starts and
ends them, `house` does what a verb asks for, `command` is what people type.
"""
