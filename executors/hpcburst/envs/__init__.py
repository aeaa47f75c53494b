"""Envs: from what a task asks for to a prefix it runs in.

`store.EnvStore` is the way in. In the order of the way: `specs` reads what is asked, whatever kind
of file it is in; `building` chooses the exact packages and makes a prefix of them, with the `child`
process in which rattler works; `activation` finds out what activating it changes; `shelves` keeps
it, under the shared root or as a pack in the `depot`, from which nodes link it on their own disks;
`keeping` looks after what is there. `conda_standin` answers Snakemake where there is no conda.
"""
