"""Runs a model on calibration data and gives the second moments of what multiplies each layer's weight."""
