"""The demo: how fast did CO2 rise at Mauna Loa? The same science as a Prefect flow and a Snakefile.

`co2` is the science, as plain functions and as a program; `flow` wraps it for Prefect, `Snakefile`
for Snakemake; `workspace` lays all of it out in a folder that a user can look at, change and run.
"""
