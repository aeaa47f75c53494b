"""Envs: what was asked (`spec`), the exact packages (`solve`), the prefix (`build`), its variables.

`store.EnvStore` is the way in. Everything rattler does happens in a child process
(`rattler_process`, `rattler_child`): its memory, its threads and its crashes leave with it, so a
flow or a Snakemake main process may fork and thread as it likes.
"""
