writeLines(paste(snakemake@rule, snakemake@threads), snakemake@output[[1]])
