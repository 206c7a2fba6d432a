"""Runs a model on calibration data and collects the second moments of each layer's inputs."""
