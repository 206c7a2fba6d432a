"""Takes a model and a plan, and writes an artifact of exactly the size that the plan predicts."""
