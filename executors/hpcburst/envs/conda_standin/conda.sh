#!/bin/sh
# Stands in for the conda command where there is none; written by hpcburst, which makes the envs.
# It answers Snakemake's frequent questions itself; only making an env, or reading one, starts Python.

platform() {
    machine=$(uname -sm)
    case $machine in
        "Linux x86_64") echo linux-64 ;;
        "Darwin x86_64") echo osx-64 ;;
        "Darwin arm64") echo osx-arm64 ;;
        *) echo "linux-${machine#* }" ;;
    esac
}

named() { # every env that has a name, as printf likes it: NAME, then PATH
    for link in @FOLDER@/envs/*; do
        [ ! -d "$link" ] || printf "$1" "${link##*/}" "$link"
    done
}

paths() { # the same as a JSON list
    list=$(named ', "%.0s%s"')
    echo "[${list#, }]"
}

case "$*" in
    --version | -V)
        echo "conda @VERSION@"
        ;;
    "info --json")
        printf '{"conda_prefix": "%s", "root_prefix": "%s", "platform": "%s", "conda_version": "%s", ' \
            @FOLDER@ @FOLDER@ "$(platform)" @VERSION@
        printf '"envs_dirs": ["%s"], "envs": %s}\n' @FOLDER@/envs "$(paths)"
        ;;
    "env list" | "info --envs" | "info -e")
        echo "# conda environments:"
        named '%-24s %s\n'
        ;;
    "env list --json" | "info --envs --json")
        echo "{\"envs\": $(paths)}"
        ;;
    "config --get channel_priority --json")
        echo '{"get": {"channel_priority": "strict"}, "success": true, "warnings": []}'
        ;;
    "config --set channel_priority strict" | clean | "clean "*)
        # Nothing to do: priority is strict, and archives are kept once for all envs.
        ;;
    "env create "* | "create "* | "env export "* | "list "*)
        exec @PYTHON@ -P -m hpcburst.envs.conda_standin "$@"
        ;;
    *)
        echo "conda: this is hpcburst's stand-in for conda, and it cannot do: conda $*" >&2
        echo "It makes envs for Snakemake. Install conda itself for more; it is then used instead." >&2
        exit 2
        ;;
esac
