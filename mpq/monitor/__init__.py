"""Watches a running model: takes the model and sketches of its calibration data, and reports what has drifted."""
