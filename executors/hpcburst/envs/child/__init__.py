"""The child process in which rattler works, and the driver's side of it (`process`).

Its memory, its threads and its crashes leave with it, so a flow or a Snakemake main process may
fork and thread as it likes. All other modules here run in the child alone.
"""
