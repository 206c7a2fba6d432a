"""Takes an artifact and gives a running model, with packed kernels where they help, and measures its speed."""
