"""The rail of policy: what this site allows.

`model` says what a site is. `discover` looks at the machine and, through `ask`, at its batch
system, whose answers `discovery` reads. `sources` says who states what in Dask's config and whose
limits bind, `load` makes the site of it, `check` tells all that is wrong with a file, `shown` says
where each value is from. `decide` grants or refuses a task before anything is queued.
"""
