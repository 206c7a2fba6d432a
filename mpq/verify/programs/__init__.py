"""Programs that run exports: each loads a file, says what it holds, and computes its outputs."""
