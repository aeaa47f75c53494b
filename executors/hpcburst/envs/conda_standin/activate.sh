# Sourced as `source activate PREFIX` by the shell commands of Snakemake's jobs. Starts no program.
if [ -r "$1/conda-meta/hpcburst-activate.sh" ]; then
    . "$1/conda-meta/hpcburst-activate.sh"
elif [ -d "$1" ]; then
    export PATH="$1/bin${PATH:+:$PATH}" CONDA_PREFIX="$1" CONDA_DEFAULT_ENV="$1" CONDA_SHLVL=1
else
    echo "activate: there is no env at $1" >&2
    return 1
fi
