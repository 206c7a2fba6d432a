"""Turns an artifact into a running model, with packed kernels where they help, and measures its speed."""
