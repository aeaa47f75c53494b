"""The rail of policy: what this site allows.

`model` says what a site is, `discover` looks at the machine, `load` reads Dask's config, and
`decide` grants or refuses a task before anything is queued.
"""
