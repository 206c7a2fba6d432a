"""Watches a model that runs: takes the model and sketches of the data that it was calibrated on, says what has drifted from them."""
