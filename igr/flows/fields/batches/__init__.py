"""An optimizer's batches, drawn at random: what its mean and its law follow."""
