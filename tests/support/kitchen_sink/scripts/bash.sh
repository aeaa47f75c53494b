printf '%s\n' "${snakemake_params[words]}" "${snakemake[threads]}" "${snakemake[rule]}" > "${snakemake_output[0]}"
