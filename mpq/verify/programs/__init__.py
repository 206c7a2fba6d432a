"""Programs that run exports: each loads a file, gives its contents, and computes its outputs."""
