"""A profile for Snakemake that is ready to use: `config.yaml` beside this file says what it sets.

    snakemake --profile "$(python -m hpcburst_recipes.snakemake_profile)"

Copy the folder to change it; what the command line says wins over it.
"""
