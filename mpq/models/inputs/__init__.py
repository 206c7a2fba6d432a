"""Takes data and a model and gives batches that the model accepts, with the reason for every choice."""
