from pathlib import Path

text = Path(snakemake.input[0]).read_text()  # noqa: F821 - Snakemake's
Path(snakemake.output[0]).write_text(text + repr(snakemake.params.nested))  # noqa: F821
