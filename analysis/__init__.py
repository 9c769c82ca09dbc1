"""The studies: data, models, training, sweeps; their results are what `paper_figures` draws."""
